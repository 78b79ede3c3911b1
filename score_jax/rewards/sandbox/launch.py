"""Starts the sandbox's own processes: a Python that holds nothing of this user's.

The process has no site-packages, no environment but a hash seed, and no open descriptor but one:
its control socket. There it first says "ready", or "failed: why".
"""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from score_jax.rewards.sandbox.packages import ENVIRONMENT, Packages

# The hash seed is fixed, so that the order of a set, and with it the reward, repeats.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_PYTHON = (sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8")
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
# Last on the path, and gone before anything else is imported: where score_jax is installed among
# other packages, none of them may take the place of a standard module, or be imported later.
_MAIN = (
    "import sys; sys.path.append(sys.argv[1]); from score_jax.rewards.sandbox import {0}; "
    "sys.path.remove(sys.argv[1]); fd, kind, packages = sys.argv[2:]; del sys.argv[1:]; "
    "{0}.main(int(fd), kind, packages)"
)
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
    ours, theirs = socket.socketpair()
    arguments = [str(theirs.fileno()), kind, packages.to_text()]
    with theirs:
        process = subprocess.Popen(
            [*_PYTHON, "-c", _MAIN.format(module), _PACKAGE_ROOT, *arguments],
            pass_fds=[theirs.fileno()],
            env=_ENVIRONMENT | (ENVIRONMENT if packages.names else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=new_session,
            cwd="/",
        )
    ours.settimeout(timeout_sec)
    try:
        with ours.makefile("rb", buffering=0) as lines:
            word = lines.readline().decode().strip()
    except OSError as error:
        word = f"no answer ({error})"
    if word == "ready":
        return process, ours, ""
    return process, ours, word.removeprefix("failed: ") or "it ended while starting"


class ForkserverGone(RuntimeError):
    """The process that programs are forked from cannot be started, or ended."""


class Forkserver:
    """A confined process that runs forkserver.py."""

    def __init__(self, kind: str, packages: Packages):
        self._process, self._control, failure = launch("forkserver", kind, packages)
        if failure:
            self.close()
            raise ForkserverGone(failure)

    def fork(self, guest_socket: int) -> int:
        """Forks a guest that answers on that socket; returns a descriptor of the process."""
        try:
            socket.send_fds(self._control, [b"J"], [guest_socket])
            data, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise ForkserverGone(str(error)) from error
        if not data or not fds:
            raise ForkserverGone("it ended")
        return fds[0]

    def close(self) -> None:
        """Ends the process and all programs forked from it; returns when they are gone."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._process.kill()
        self._process.wait()
        self._control.settimeout(DYING_SEC)
        with contextlib.suppress(OSError):  # in namespaces its child lasts a moment longer
            while self._control.recv(64):
                pass
        self._control.close()
