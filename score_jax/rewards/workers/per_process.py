"""What a process has one of for each key, started at first use: sandboxes, pools of lanes.

    shared.get(key, start)   the one of that key; without one, what start() makes
    shared.close()           ends all of them; the next use starts new ones

Usable from any thread. A forked child forgets those of its parent and starts its own. At exit all
are ended.
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Process(Protocol):
    """What runs besides this process and belongs to it."""

    def close(self) -> None:
        """Ends it; a second call does nothing."""

    def forget(self) -> None:
        """For a forked child: closes its descriptors; the process is the parent's."""


P = TypeVar("P", bound=Process)


class PerProcess(Generic[P]):
    """One P for each key."""

    def __init__(self):
        self._found: dict[Hashable, P] = {}
        self._lock = threading.Lock()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork_in_child)

    def get(self, key: Hashable, start: Callable[[], P]) -> P:
        """The one of that key. What `start` raises is passed on, and then there is still none."""
        with self._lock:
            if key not in self._found:
                self._found[key] = start()
            return self._found[key]

    def close(self, only: P | None = None) -> None:
        """Ends them.

        only: that one alone, and only while it is shared, so that threads that meet the end of the
        same one do not close its successor.
        """
        with self._lock:
            ended = [key for key, one in self._found.items() if only in (None, one)]
            processes = [self._found.pop(key) for key in ended]
        for process in processes:
            with contextlib.suppress(OSError):
                process.close()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        for one in self._found.values():
            one.forget()
        self._found.clear()
