"""The sandbox as the trainer uses it: started on first use, and only if it withstands attacks.

Two kinds, tried in this order: "namespace" (namespaces.py) and "landlock" (landlock.py), both with
seccomp. A kind counts as working if a harmless program passes in it and none of the probes
(self_test.py) gets through, tried for real on this machine. If neither does, model-written programs
are refused, unless the setting rewards.allow_unsandboxed accepts that they may do whatever the user
who trains may do.

Usable from any thread; a forked child of this process starts a sandbox of its own. Everything ends
with this process: closed at exit, and by end of file if it is killed. Linux only.
"""

import contextlib
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from score_jax.problem import InputError
from score_jax.rewards.sandbox import scheduler, self_test
from score_jax.rewards.sandbox.tester import Job
from score_jax.rewards.workers.per_process import Shared

KINDS = ("auto", "namespace", "landlock", "none")  # the values of config.rewards.sandbox
START_SEC = 60.0
UNSANDBOXED = "model-written programs run WITHOUT A SANDBOX, with all rights of this user"
WINDOW = 256  # programs asked about at once: answers to more would fill the socket

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_WARDEN = (
    "import sys; sys.path.insert(0, sys.argv[1]); from score_jax.rewards.sandbox import scheduler; "
    "scheduler.main(int(sys.argv[2]), sys.argv[3], sys.argv[1])"
)
_log = logging.getLogger("score_jax.rewards")


class SandboxGone(RuntimeError):
    """The sandbox cannot be started, or ended."""


class Sandbox:
    """A running warden of one kind."""

    def __init__(self, kind: str):
        self.kind = kind
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [_PACKAGE_ROOT, str(theirs.fileno()), kind]
            self._process = subprocess.Popen(
                [*scheduler.PYTHON, "-c", _WARDEN, *arguments],
                pass_fds=[theirs.fileno()],
                env=scheduler.ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the trainer, which still grades as it saves
                cwd="/",
            )
        ours.settimeout(START_SEC)
        self._control = ours
        try:
            with ours.makefile("rb", buffering=0) as lines:
                answer = lines.readline().decode().strip()
        except OSError as error:
            answer = f"no answer in {START_SEC:.0f} s ({error})"
        if answer != "ready":
            self.close()
            raise SandboxGone(answer.removeprefix("failed: ") or "it ended while starting")

    def run(self, jobs: Sequence[Job], timeout_sec: float, *, overtime: bool = False) -> list[str]:
        """The reason of each program's grade; each is killed at its own deadline.

        overtime: a program that waited for a core, on a busy machine, may go on past its deadline.
        Raises: SandboxGone if the sandbox ended, killed from outside for one.
        """
        reasons = [""] * len(jobs)
        with self._connect() as connection, connection.makefile("rb") as lines:
            asked = answered = 0
            while answered < len(jobs):
                try:
                    while asked < len(jobs) and asked - answered < WINDOW:
                        question = {
                            "id": asked,
                            "job": vars(jobs[asked]),
                            "timeout_sec": timeout_sec,
                            "overtime": overtime,
                        }
                        connection.sendall(json.dumps(question).encode() + b"\n")
                        asked += 1
                    answer: dict[str, Any] = json.loads(lines.readline())
                except (OSError, ValueError) as error:
                    raise SandboxGone("it ended") from error
                reasons[answer["id"]] = answer["reason"]
                answered += 1
        return reasons

    def close(self) -> None:
        """Ends all its processes; a second call does nothing."""
        self._control.close()  # the warden reads the end of file, kills its programs and ends
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """For a forked child: closes its descriptors; the processes are the parent's."""
        self._control.close()
        self._process.returncode = 0  # not ours to wait for

    @contextlib.contextmanager
    def _connect(self) -> Iterator[socket.socket]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._lock:
                try:
                    socket.send_fds(self._control, [b"C"], [theirs.fileno()])
                except OSError as error:
                    raise SandboxGone("it ended") from error
            yield ours


def start(kind: str = "auto", allow_unsandboxed: bool = False) -> Sandbox:
    """A sandbox that has withstood the probes.

    kind: one of KINDS; "auto" takes the first that works, never "none".
    Raises: InputError where none works, naming why and what to do.
    """
    if kind == "none" and not allow_unsandboxed:
        raise InputError(
            "config.rewards.sandbox='none' runs model-written programs with all rights of the user "
            "who trains. Set config.rewards.allow_unsandboxed=True as well to accept that, or "
            "config.rewards.sandbox='auto'."
        )
    refused = []
    for name in ("namespace", "landlock") if kind == "auto" else (kind,):
        if name == "none":
            break
        try:
            sandbox = Sandbox(name)
        except (SandboxGone, OSError) as error:
            refused.append(f"{name}: {error}")
            continue
        try:
            holes = self_test.holes(sandbox.run)
        except SandboxGone as error:
            holes = [str(error)]
        if not holes:
            _log.info("model-written programs run in the sandbox %r", name)
            return sandbox
        sandbox.close()
        refused.append(f"{name}: {'; '.join(holes)}")
    if not allow_unsandboxed:
        raise InputError(
            "Model-written programs are rewarded by running them, and no sandbox works on this "
            f"machine ({'. '.join(refused)}). Run on Linux 5.13 or later with Landlock (most "
            "kernels), or in a container that may make namespaces (docker run --privileged, or "
            "as root with --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined). To run them without protection, with all rights of this user, "
            "set config.rewards.allow_unsandboxed=True."
        )
    warn("; ".join(refused))
    return Sandbox("none")


def warn(why: str = "") -> None:
    """Says in the log, and on standard error, that programs run unprotected."""
    message = f"{UNSANDBOXED} ({why})" if why else UNSANDBOXED
    if _log.hasHandlers():
        _log.warning(message)
    print(f"score_jax: WARNING: {message}", file=sys.stderr)


_sandboxes: Shared[Sandbox] = Shared()
close = _sandboxes.close  # of one sandbox, or of all
_default: tuple[str, bool] = ("auto", False)


def configure(kind: str = "auto", allow_unsandboxed: bool = False) -> str:
    """Chooses the sandbox of this process, starts it, and returns its kind. Raises: InputError."""
    global _default
    _default = (kind, allow_unsandboxed)
    return shared().kind


def shared(*, after: Sandbox | None = None) -> Sandbox:
    """The sandbox of this process, started on first use. Raises: InputError where none works.

    after: one that ended. What takes its place is of its kind: that is what the logs say.
    """
    wanted = (after.kind, after.kind == "none") if after else _default
    return _sandboxes.get(_default, lambda: start(*wanted))


def run(jobs: Sequence[Job], timeout_sec: float, *, overtime: bool = False) -> list[str]:
    """Sandbox.run in the shared one; once more in a new one if it was killed from outside."""
    sandbox = shared()
    try:
        return sandbox.run(jobs, timeout_sec, overtime=overtime)
    except SandboxGone:
        close(sandbox)
        return shared(after=sandbox).run(jobs, timeout_sec, overtime=overtime)
