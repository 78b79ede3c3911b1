"""The sandbox as the trainer uses it: started on first use, and only if it withstands attacks.

There are two kinds, tried in this order: "namespace" (namespaces.py) and "landlock" (landlock.py),
both with seccomp. A kind works if a harmless program passes in it and no probe (self_test.py)
succeeds; both are run on this machine. If no kind works, model-written programs are refused, unless
the setting rewards.allow_unsandboxed accepts that they have all rights of the user who trains.

Each process that grades has a sandbox of its own (per_process.py), which ends with it: it is closed
at exit, and reads an end of file if the process is killed. Linux only.
"""

import contextlib
import json
import logging
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from score_jax.problem import InputError
from score_jax.rewards.sandbox import self_test
from score_jax.rewards.sandbox.installed import find
from score_jax.rewards.sandbox.launch import ended, launch
from score_jax.rewards.sandbox.packages import Packages
from score_jax.rewards.sandbox.scarce import MachineGone, gone, patiently
from score_jax.rewards.sandbox.tester import Job
from score_jax.rewards.workers.per_process import PerProcess

KINDS = ("auto", "namespace", "landlock", "none")  # the values of config.rewards.sandbox
START_SEC = 60.0
WINDOW = 256  # unanswered programs at once: the answers to more would fill the socket

_log = logging.getLogger("score_jax.rewards")


class SandboxGone(RuntimeError):
    """The sandbox cannot be started, or ended."""


class Sandbox:
    """A running scheduler, with its programs in one kind of sandbox."""

    def __init__(self, kind: str, packages: Packages = Packages()):  # noqa: B008  (frozen)
        self.kind = kind
        self.packages = packages
        self._lock = threading.Lock()
        # A session of its own: Ctrl-C is for the trainer, which still grades as it saves.
        self._process, self._control, failure = launch(
            "scheduler", kind, packages, timeout_sec=START_SEC, new_session=True
        )
        if failure:
            self.close()
            raise SandboxGone(failure)

    def run(self, jobs: Sequence[Job], timeout_sec: float, *, overtime: bool = False) -> list[str]:
        """The reason of each program's grade; each is killed at its own deadline.

        overtime: on a busy machine a program that waited for a core may run past its deadline.
        Raises: SandboxGone if the sandbox ended, for example because it was killed from outside.
        """
        reasons = [""] * len(jobs)
        limits = {"timeout_sec": timeout_sec, "overtime": overtime}
        with self._connect() as connection, connection.makefile("rb") as lines:
            asked = answered = 0
            while answered < len(jobs):
                try:
                    while asked < len(jobs) and asked - answered < WINDOW:
                        question = {"id": asked, "job": vars(jobs[asked]), **limits}
                        connection.sendall(json.dumps(question).encode() + b"\n")
                        asked += 1
                    answer: dict[str, Any] = json.loads(lines.readline())
                except (OSError, ValueError) as error:
                    raise SandboxGone(ended(self._process, "it ended")) from error
                if "gone" in answer:
                    raise gone(answer["gone"])
                reasons[answer["id"]] = answer["reason"]
                answered += 1
        return reasons

    def close(self) -> None:
        """Ends all its processes; a second call does nothing."""
        self._control.close()  # the scheduler reads the end of file, kills its programs and ends
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()

    def forget(self) -> None:
        """For a forked child: closes its descriptors; the processes are the parent's."""
        self._control.close()
        self._process.returncode = 0  # not ours to wait for
        if self._process.stderr:
            self._process.stderr.close()

    @contextlib.contextmanager
    def _connect(self) -> Iterator[socket.socket]:
        ours, theirs = patiently(socket.socketpair)
        with ours:
            with theirs, self._lock:
                try:
                    socket.send_fds(self._control, [b"C"], [theirs.fileno()])
                except OSError as error:
                    raise SandboxGone(ended(self._process, "it ended")) from error
            yield ours


def start(
    kind: str = "auto",
    allow_unsandboxed: bool = False,
    packages: Packages = Packages(),  # noqa: B008  (frozen)
) -> Sandbox:
    """Starts a sandbox that withstands the probes.

    kind: one of KINDS; "auto" takes the first that works, never "none". packages: what programs may
    import.
    Raises: InputError where none works; the message says why, and what to do.
    """
    if kind == "none" and not allow_unsandboxed:
        raise InputError(
            "config.rewards.sandbox='none' runs model-written programs with all rights of the user "
            "who trains. Set config.rewards.allow_unsandboxed=True as well to accept that, or "
            "config.rewards.sandbox='auto'."
        )
    failures = []
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(
            "the sandbox of model-written programs is attacked before it is used, and that needs a "
            f"folder for temporary files ({error.strerror}). Set the environment variable TMPDIR "
            "to a folder that this user can write."
        ) from error
    for name in {"auto": ("namespace", "landlock"), "none": ()}.get(kind, (kind,)):
        try:
            sandbox = Sandbox(name, packages)
        except MachineGone:
            raise
        except (SandboxGone, OSError) as error:
            failures.append(f"{name}: {error}")
            continue
        try:
            holes = self_test.holes(sandbox.run)
        except SandboxGone as error:
            holes = [str(error)]
        if not holes:
            _log.info("model-written programs run in the sandbox %r", name)
            return sandbox
        sandbox.close()
        failures.append(f"{name}: {'; '.join(holes)}")
    if not allow_unsandboxed:
        raise InputError(
            "Grading runs model-written programs, and no sandbox works on this machine "
            f"({'. '.join(failures)}). Run on Linux 5.13 or later with Landlock (most kernels have "
            "it), or in a container that may make namespaces (docker run --privileged, or as root "
            "with --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt "
            "apparmor=unconfined). To run the programs without protection, with all rights of this "
            "user, set config.rewards.allow_unsandboxed=True."
        )
    why = f" ({'; '.join(failures)})" if failures else ""
    message = f"model-written programs run WITHOUT A SANDBOX, with all rights of this user{why}"
    if _log.hasHandlers():
        _log.warning(message)
    print(f"score_jax: WARNING: {message}", file=sys.stderr)
    try:
        return Sandbox("none", packages)
    except SandboxGone as error:
        raise InputError(
            "model-written programs cannot be run on this machine, not even without a sandbox, as "
            f"config.rewards.allow_unsandboxed allows: {error}. Run `{sys.executable} -S -c ''` to "
            "see whether this Python starts at all, and train on problems that need no programs "
            "(config.problems) meanwhile."
        ) from error


_sandboxes: PerProcess[Sandbox] = PerProcess()
close = _sandboxes.close  # of one sandbox, or of all
_default: tuple[str, bool, Packages] = ("auto", False, Packages())


def configure(
    kind: str = "auto", allow_unsandboxed: bool = False, packages: Sequence[str] = ()
) -> str:
    """Chooses the sandbox of this process, starts it, and returns its kind.

    packages: what programs and tests may import beside the standard library; import names.
    Raises: InputError where no sandbox works, and for a package that is not installed.
    """
    choose(kind, allow_unsandboxed, packages)
    return shared().kind


def choose(
    kind: str = "auto", allow_unsandboxed: bool = False, packages: Sequence[str] = ()
) -> None:
    """As configure, but starts nothing yet."""
    global _default
    _default = (kind, allow_unsandboxed, find(packages) if packages else Packages())


def packages() -> tuple[str, ...]:
    """The packages that programs and tests may import, beside the standard library."""
    return _default[2].names


def shared(*, after: Sandbox | None = None) -> Sandbox:
    """The sandbox of this process, started on first use. Raises: InputError where none works.

    after: one that ended. Its successor is of the same kind: the logs name that kind.
    """
    wanted = (after.kind, after.kind == "none", after.packages) if after else _default
    return _sandboxes.get(_default, lambda: start(*wanted))


def run(jobs: Sequence[Job], timeout_sec: float, *, overtime: bool = False) -> list[str]:
    """Sandbox.run in this process's sandbox; again in a new one if it was killed from outside.

    Raises: InputError if none starts the first time; MachineGone where it no longer does.
    """
    sandbox = shared()
    try:
        return sandbox.run(jobs, timeout_sec, overtime=overtime)
    except SandboxGone as error:
        _log.warning("the sandbox of model-written programs is started again: %s", error)
        close(sandbox)
    try:
        return shared(after=sandbox).run(jobs, timeout_sec, overtime=overtime)
    except (SandboxGone, InputError) as error:  # it worked before, so the input is not at fault
        raise gone(error) from error
