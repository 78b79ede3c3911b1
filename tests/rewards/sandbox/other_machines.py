"""Has the sandbox's own processes believe that they run on another machine; see start_test.py.

Imported in those processes, so it imports little.
"""

import errno
import os
import resource
import signal
import sys
from pathlib import Path

from score_jax.rewards.sandbox import launch, scarce
from score_jax.rewards.sandbox.linux import syscalls

_ROOT = str(Path(__file__).resolve().parents[3])


def main(machine: str) -> str:
    """The code of launch._MAIN for processes of that machine: a function of this module."""
    return (
        f"import sys; sys.path.insert(0, {_ROOT!r}); "
        f"from tests.rewards.sandbox import other_machines; other_machines.{machine}(); "
        f"sys.path.remove({_ROOT!r}); {launch._MAIN}"
    )


def no_linux() -> None:
    """As on macOS, as far as this can be imitated."""
    launch._MAIN = main("no_linux")
    del os.pidfd_open, signal.pidfd_send_signal, os.sched_getaffinity, resource.RLIMIT_MSGQUEUE
    syscalls._libc = None
    sys.platform = "darwin"
    setrlimit = resource.setrlimit

    def refuse(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        setrlimit(kind, limits)

    resource.setrlimit = refuse  # type: ignore[assignment]


def _refuse_forks(times: float) -> None:
    fork, left = os.fork, [times]

    def refuse() -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    os.fork = refuse


def few_processes() -> None:
    """The first forks of each process fail."""
    launch._MAIN = main("few_processes")
    _refuse_forks(3)


def no_processes() -> None:
    """All forks fail."""
    launch._MAIN = main("no_processes")
    scarce.PATIENCE_SEC = 0.3
    _refuse_forks(float("inf"))


def no_modules() -> None:
    """An import fails."""
    raise ImportError("libz.so.1: cannot open shared object file")
