"""When the machine has no process, descriptor or memory left: wait for some, and say so at last."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from score_jax.problem import MachineGone

SCARCE = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
PATIENCE_SEC = 30.0
FIRST_WAIT_SEC, LONGEST_WAIT_SEC = 0.05, 2.0
_ADVICE = (
    "Programs cannot be run now. Raise the limits of processes and open files of this user or "
    "container (ulimit -u, ulimit -n, docker run --pids-limit), or end what uses them, and start "
    "the same command again: the run resumes."
)

T = TypeVar("T")


def gone(why: object) -> MachineGone:
    """The error for a lack that lasts."""
    return MachineGone(f"the sandbox of model-written programs has failed: {why}. {_ADVICE}")


def patiently(action: Callable[[], T]) -> T:
    """Repeats an action while the machine lacks what it needs, ever more slowly.

    Raises: MachineGone after PATIENCE_SEC.
    """
    began, wait_sec = time.monotonic(), FIRST_WAIT_SEC
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            if time.monotonic() - began > PATIENCE_SEC:
                raise gone(error) from error
        time.sleep(wait_sec)
        wait_sec = min(2 * wait_sec, LONGEST_WAIT_SEC)
