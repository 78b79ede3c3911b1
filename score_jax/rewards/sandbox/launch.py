"""Starts the sandbox's own processes: a Python that holds nothing of this user's.

The process has no site-packages, no environment but a hash seed, and no open descriptor but its
control socket and an end of a pipe for what it prints before it dies. On the socket it first says
"ready", or "failed: why".
"""

import contextlib
import errno
import functools
import os
import socket
import subprocess
import sys
from pathlib import Path

from score_jax.rewards.sandbox.packages import ENVIRONMENT, Packages
from score_jax.rewards.sandbox.scarce import patiently

# The hash seed is fixed, so that the order of a set, and with it the reward, repeats.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_PYTHON = (sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
# Modules register handlers that repair their locks and seeds after a fork. These processes have one
# thread, so nothing needs repair, and the handlers would cost each fork 80 to 200 page faults.
# score_jax is last on the path, and gone before anything else is imported: where it is installed
# among other packages, none of them may take the place of a standard module, or be imported later.
_MAIN = (
    "import os, sys; os.register_at_fork = lambda **_: None; "
    "sys.path.append(sys.argv[1]); from score_jax.rewards.sandbox import {0}; "
    "sys.path.remove(sys.argv[1]); fd, kind, packages = sys.argv[2:]; del sys.argv[1:]; "
    "{0}.main(int(fd), kind, packages)"
)
WORDS = 2_000  # characters of what a process printed last
DYING_SEC = 5.0  # the longest wait for the end of a killed process


def launch(
    module: str,
    kind: str,
    packages: Packages,
    *,
    timeout_sec: float | None = None,
    new_session: bool = False,
) -> tuple[subprocess.Popen[bytes], socket.socket, str]:
    """Starts a process that runs the `main` of a module beside this one; waits for its first word.

    timeout_sec: of its first word and of each later message on the socket; None: no limit.
    Returns: the process, our end of its control socket, and why it failed: empty if it is ready.
    """
    ours, theirs = patiently(socket.socketpair)
    arguments = [str(theirs.fileno()), kind, packages.to_text()]
    environment = _ENVIRONMENT | _library_path() | (ENVIRONMENT if packages.names else {})
    with theirs:
        process = patiently(
            lambda: subprocess.Popen(
                [*_PYTHON, "-c", _MAIN.format(module), _PACKAGE_ROOT, *arguments],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=new_session,
                cwd="/",
            )
        )
    ours.settimeout(timeout_sec)
    try:
        with ours.makefile("rb", buffering=0) as lines:
            word = lines.readline().decode().strip()
    except OSError as error:
        word = f"no answer ({error})"
    if word == "ready":
        return process, ours, ""
    return process, ours, word.removeprefix("failed: ") or ended(process, "it ended while starting")


def ended(process: subprocess.Popen[bytes], what: str) -> str:
    """What happened to a process that ended, with its status and what it printed last."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        what += f" (status {process.wait(timeout=1)})"
    words = ""
    with contextlib.suppress(ValueError):  # another thread has closed it
        assert process.stderr
        os.set_blocking(process.stderr.fileno(), False)
        words = (process.stderr.read() or b"").decode(errors="replace").strip()[-WORDS:]
    return f"{what}; it printed last: {words}" if words else what


@functools.cache
def _library_path() -> dict[str, str]:
    """The folder of this Python's own libraries, if it needs LD_LIBRARY_PATH to find them."""
    known = {name: os.environ[name] for name in _LIBRARIES if os.environ.get(name)}
    if known and not _starts(_ENVIRONMENT) and _starts(_ENVIRONMENT | known):
        return known
    return {}


def _starts(environment: dict[str, str]) -> bool:
    command = [*_PYTHON, "-c", "import ctypes, hashlib, zlib"]
    return not subprocess.run(command, env=environment, capture_output=True, check=False).returncode


class ForkserverGone(RuntimeError):
    """The process that programs are forked from cannot be started, or ended."""


class Forkserver:
    """A confined process that runs forkserver.py."""

    def __init__(self, kind: str, packages: Packages):
        self._process, self._control, failure = launch("forkserver", kind, packages)
        if failure:
            self.close()
            raise ForkserverGone(failure)

    def fork(self, guest_socket: int) -> tuple[int, int]:
        """Forks a guest that answers on that socket.

        Returns: a descriptor of the process, and 0; or, where the system has none, one that can be
        read once the process is gone, and its number.
        Raises: OSError (EAGAIN) if no process can be forked now; ForkserverGone.
        """
        try:
            socket.send_fds(self._control, [b"J"], [guest_socket])
            data, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise ForkserverGone(str(error)) from error
        if data.startswith(b"refused"):
            raise OSError(errno.EAGAIN, data.decode().removeprefix("refused: ").strip())
        if not data or not fds:
            raise ForkserverGone(ended(self._process, "it ended"))
        return fds[0], int(data.split()[1])

    def close(self) -> None:
        """Ends the process and all programs forked from it; returns when they are gone."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()
        with contextlib.suppress(OSError):  # in namespaces its child lasts a moment longer
            self._control.settimeout(DYING_SEC)
            while self._control.recv(64):
                pass
        self._control.close()
