"""Seconds that a run spends in its phases; the phases are named in a profile (profile.py) too.

    clock = Clock(compile_sec)
    with clock.phase("save"):
        ...
    clock.taken()    # {"sec/compile": 0.0, "sec/evaluation": 0.0, "sec/save": 0.2}

Rollout, grade and update have seconds of their own in metrics.jsonl, which the loop measures: they
overlap with what the host does meanwhile.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax

BESIDES = ("evaluation", "save")  # phases that are no part of a step


class Clock:
    """Adds up the seconds of phases, without what they spent on compiling."""

    def __init__(self, compile_sec: Callable[[], float] = lambda: 0.0):
        """Args: compile_sec: the seconds spent on compiling so far, `Watch.compile_sec`."""
        self._compile_sec = compile_sec
        self._taken_compile_sec = 0.0
        self._seconds = dict.fromkeys(BESIDES, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names what runs inside in a profile, and counts its seconds if it is one of BESIDES."""
        started = self.now()
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            if name in self._seconds:
                self._seconds[name] += self.now() - started

    def now(self) -> float:
        """A clock that stands still while programs are compiled, in seconds."""
        return time.perf_counter() - self._compile_sec()

    def taken(self) -> dict[str, float]:
        """Seconds since the last call, by the names of metrics.jsonl."""
        compile_sec = self._compile_sec()
        found = {"sec/compile": compile_sec - self._taken_compile_sec}
        found |= {f"sec/{name}": seconds for name, seconds in self._seconds.items()}
        self._taken_compile_sec = compile_sec
        self._seconds = dict.fromkeys(BESIDES, 0.0)
        return found
