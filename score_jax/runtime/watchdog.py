"""A deadline for every phase of a step, so that a run that hangs ends and reports where.

    watchdog.at("stage1", 12)
    with watchdog.phase("grade"):
        ...

A phase that runs longer than its limit (config.watchdog), or so long without a sign that it gets
on, is assumed to hang: a device does not answer, storage is gone, or another process waits for this
one. The process then prints which phase of which step hung on which host, which process it waits
for, and the stack of every thread. It exits with status 76. The other processes of the run notice
and exit too. Re-running the command resumes from the last checkpoint.

Phases may be nested; each has its own deadline. Only time in which this process ran counts, not
that in which it was stopped (SIGSTOP) or its machine asleep.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

from score_jax.config.settings import WatchdogSettings
from score_jax.runtime import hosts

HUNG = 76  # exit status

LOOK_SEC = 0.25  # between two looks at the phases that run

_SETTINGS = {"update": "train_step"}  # a ConfigDict has a method `update`


class Watchdog:
    """One deadline per phase that is running; see the head of the file."""

    def __init__(self, limits: WatchdogSettings):
        self._limits = limits
        self.where = "before the first step"
        # When they end, in seconds of `_ran_sec`, and what they are; the innermost is the last.
        self._running: list[tuple[float, tuple[str, str, float]]] = []
        self._ran_sec = 0.0
        self._watching = False  # by a thread of its own, as long as it finds phases that run
        self._lock = threading.Lock()

    def at(self, stage: str, step: int) -> None:
        """Sets the step that the next phases belong to."""
        self.where = f"step {step} of {stage}"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Ends the process if the body takes longer than the limit of that name; 0: never."""
        setting = _SETTINGS.get(name, name)
        limit_sec = getattr(self._limits, setting)
        if not limit_sec:
            yield
            return
        self._begin((name, setting, limit_sec))
        try:
            yield
        finally:
            with self._lock:
                self._running.pop()

    def goes_on(self) -> None:
        """Says that the innermost phase gets on: its limit counts from now."""
        with self._lock:
            if self._running:
                self._running[-1] = self._from_now(self._running[-1][1])

    def _begin(self, what: tuple[str, str, float]) -> None:
        with self._lock:
            self._running.append(self._from_now(what))
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _from_now(self, what: tuple[str, str, float]) -> tuple[float, tuple[str, str, float]]:
        return self._ran_sec + LOOK_SEC + what[2], what  # the next look counts what went before

    def _watch(self) -> None:
        looked = time.monotonic()
        while True:
            time.sleep(LOOK_SEC)
            now = time.monotonic()
            with self._lock:
                self._ran_sec += min(now - looked, 2 * LOOK_SEC)  # more: it did not run
                looked = now
                if not self._running:
                    self._watching = False
                    return
                hung = [what for ends, what in self._running if ends < self._ran_sec]
            if hung:
                self._end(*hung[-1])

    def _end(self, name: str, setting: str, limit_sec: float) -> None:
        waiting = hosts.waiting_for()
        print(
            f"score_jax: the phase '{name}' ({self.where}) has taken more than "
            f"config.watchdog.{setting}={limit_sec:g} seconds in process {jax.process_index()} on "
            f"{socket.gethostname()}"
            + (f", which waits for {waiting}" if waiting else "")
            + ". It probably hangs, so this process exits; the stacks of its threads are below. If "
            "the phase is only slow, raise that limit. Re-running the command resumes from the "
            "last checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        hosts.leave_word(
            f"the phase '{name}' ({self.where}) hung"
            + (f" while it waited for {waiting}." if waiting else ".")
        )
        os._exit(HUNG)
