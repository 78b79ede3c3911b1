"""Sandboxes and pools, of which a process has one for each key, started on first use.

    per_process.get(key, start)   the one of that key; start() makes it if there is none
    per_process.close()           ends all of them; the next use starts new ones

Usable from any thread. A forked child forgets those of its parent and starts its own. All end when
this process exits.
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar


class Process(Protocol):
    """A process, or several, that this process has started."""

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
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def get(self, key: Hashable, start: Callable[[], P]) -> P:
        """The one of that key. If `start` raises, there is still none; the error is passed on."""
        with self._lock:
            if key not in self._found:
                self._found[key] = start()
            return self._found[key]

    def close(self, only: P | None = None) -> None:
        """Ends them.

        only: ends only that one, and only if it is still here. So if several threads find that it
        is dead, none of them closes its successor.
        """
        self._end(lambda key, one: only in (None, one))

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Ends those whose key is not wanted."""
        self._end(lambda key, one: not wanted(key))

    def _end(self, which: Callable[[Any, P], bool]) -> None:
        with self._lock:
            ended = [key for key, one in self._found.items() if which(key, one)]
            processes = [self._found.pop(key) for key in ended]
        for process in processes:
            with contextlib.suppress(OSError):
                process.close()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        for one in self._found.values():
            one.forget()
        self._found.clear()
