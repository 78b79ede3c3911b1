"""A deadline for every phase of a step, so that a run which hangs ends and says where.

    watchdog.at("stage1", 12)
    with watchdog.phase("grade"):
        ...

A phase that runs longer than its limit (config.watchdog) is one that will never end: a device that
does not answer, storage that is gone, another process that waits for us. The process then says in
one message which phase of which step hung on which host and whom it waits for, shows where every
thread stands, and exits with a status of its own. The other processes of a run find that it is
gone and end too, and the same command goes on from the last checkpoint.

Phases may be inside each other; each has its own deadline.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
from collections.abc import Iterator

from score_jax.config.settings import WatchdogSettings
from score_jax.runtime import hosts

HUNG = 76  # exit status


class Watchdog:
    """Runs one deadline per phase that is entered; see the head of the file."""

    def __init__(self, limits: WatchdogSettings):
        self._limits = limits
        self._where = "before the first step"

    def at(self, stage: str, step: int) -> None:
        """The step that the phases to come belong to."""
        self._where = f"step {step} of {stage}"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Ends the process if its body takes longer than the limit of that name; 0: never."""
        limit_sec = getattr(self._limits, name)
        if not limit_sec:
            yield
            return
        timer = threading.Timer(limit_sec, self._end, (name, limit_sec))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, name: str, limit_sec: float) -> None:
        waiting = hosts.waiting_for()
        print(
            f"score_jax: the phase '{name}' ({self._where}) has taken more than "
            f"config.watchdog.{name}={limit_sec:g} seconds in process {hosts.index()} on "
            f"{socket.gethostname()}"
            + (f", which waits for {waiting}" if waiting else "")
            + ". It is taken for hung and this process ends; where its threads stand is below. If "
            "the phase only is slow, raise that limit. The same command goes on from the last "
            "checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(HUNG)
