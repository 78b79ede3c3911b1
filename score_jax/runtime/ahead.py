"""Compiles programs in a thread beside the run, before they are called.

    job = Job(work)     `work` compiles a program; it waits for the jobs before it
    job.begun()         where the program is called: whether to wait; else it is taken back
    job.wait()          until it is there

One at a time: the run compiles others, or computes, beside it.
"""

import concurrent.futures
import threading
from collections.abc import Callable

_NAME = "compile-ahead"
_pool: concurrent.futures.ThreadPoolExecutor | None = None
_under_way: set["Job"] = set()


class Job:
    """A program that is compiled ahead."""

    def __init__(self, work: Callable[[], object]):
        global _pool
        _pool = _pool or concurrent.futures.ThreadPoolExecutor(1, _NAME)
        _under_way.add(self)
        self._future = _pool.submit(work)
        self._future.add_done_callback(lambda _: _under_way.discard(self))

    def begun(self) -> bool:
        """Whether it is being compiled, or has been; else it is taken back."""
        return not self._future.cancel()

    def wait(self) -> None:
        """Returns when it has been compiled. An error is not raised: the call will meet it too."""
        concurrent.futures.wait([self._future])


def is_here() -> bool:
    """Whether this is the thread of the jobs."""
    return threading.current_thread().name.startswith(_NAME)


def drop() -> None:
    """Takes back the jobs that have not begun."""
    for job in list(_under_way):
        job.begun()


def is_busy() -> bool:
    """Whether a job is under way, which the end of the process would wait for."""
    return bool(_under_way)
