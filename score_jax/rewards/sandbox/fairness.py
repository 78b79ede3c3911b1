"""Shares the cores among programs, so that slow programs delay the others little.

A program that has run for a slice (SLICE_SEC) without an end is slow. At most as many programs that
are not slow run at once as there are cores; slow ones run beside them. Where there are more slow
programs than cores, all slow ones are stopped until no program waits for its turn, and then run on
at low priority.

The deadline is wall clock. On a busy machine that would make rewards depend on the load. So a
program of a batch may run past its deadline for as long as it waited for a core or was stopped (at
most OVERTIME). A batch with many slow programs (MANY) gets one deadline for all of them, counted
from when the first began: a hundred that hang delay a batch as long as one does.
"""

import contextlib
import dataclasses
import math
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Sequence

from score_jax.rewards.sandbox.linux import proc

SLICE_SEC = 0.15
SHORT_SLICE_SEC = 0.015  # while there are more slow programs than cores; honest ones take some 5 ms
PATIENCE = 4  # slices for which a program that waits for a core does not count as slow
LOW_PRIORITY = 19  # as of nice
MANY = 4  # slow programs of a batch per core; with more they share one deadline
LEAST = 0.5  # the share of its deadline that the program which began last has in any case
OVERTIME = 4.0  # times its deadline: a program is killed then, however long it waited
RECHECK_SEC = 0.1  # a program that is owed time is looked at again after this


@dataclasses.dataclass(eq=False)
class Batch:
    """What the programs of one client have in common."""

    crowded: bool = False  # many of its programs are slow, so these share one deadline
    first_slow: float = math.inf  # when the first of its slow programs that still run began
    last_began: float = 0.0


@dataclasses.dataclass(eq=False)
class Turn:
    """One program's run: its deadline, and what it has had of the cores. Times are monotonic."""

    batch: Batch
    timeout_sec: float
    overtime: bool  # it may run past its deadline for as long as it waited for a core
    process: int  # a descriptor of the program's process, or a pipe that it alone holds open
    program_pid: int  # 0 if it is not known
    tester_pid: int
    began: float
    ends: float  # when it is killed, or looked at again
    beside: bool = False  # it no longer counts as one of those for which a core is kept
    slow: bool = False  # it has used its slice, and not by waiting for a core
    lowered: bool = False
    stopped_at: float = 0.0  # 0: it is not stopped
    stopped_sec: float = 0.0  # how long it was stopped before that
    waited_before_sec: float = 0.0  # how long its processes had waited for a core when it began
    by_number: bool = False  # `process` is such a pipe, so signals go to the number

    def send(self, number: int) -> None:
        """Sends a signal to the program. Raises: OSError."""
        if not self.by_number:
            signal.pidfd_send_signal(self.process, number)
        elif not select.select([self.process], [], [], 0)[0]:  # it is there
            os.kill(self.program_pid, number)

    @property
    def pids(self) -> tuple[int, int]:
        """The program's process and its tester's."""
        return self.program_pid, self.tester_pid

    def waited_sec(self) -> float:
        """How long the program and its tester were ready to run and had no core."""
        return proc.waited_sec(self.pids) - self.waited_before_sec


def begin(
    batch: Batch, timeout_sec: float, overtime: bool, *, process: int, number: int, tester_pid: int
) -> Turn:
    """The turn of a program whose process was forked just now; process, number: Forkserver.fork."""
    now = time.monotonic()
    pid = number or proc.pid_of(process)
    ends = now + timeout_sec
    turn = Turn(batch, timeout_sec, overtime, process, pid, tester_pid, now, ends)
    turn.by_number = number > 0
    turn.waited_before_sec = proc.waited_sec(turn.pids)
    batch.last_began = now
    return turn


class Cores:
    """The cores of this machine, and who may use them."""

    def __init__(self) -> None:
        known = hasattr(os, "sched_getaffinity")
        self.number = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
        self._slice_sec = SLICE_SEC

    def has_room(self, turns: Sequence[Turn]) -> bool:
        """Whether one more program may begin."""
        return sum(not turn.beside for turn in turns) < self.number

    def next_look(self, turn: Turn) -> float:
        """When something is due for a turn: the end of its slice, or its deadline."""
        return turn.ends if turn.beside else min(turn.ends, turn.began + self._slice_sec)

    def share(self, turns: Sequence[Turn], now: float, *, others_wait: bool) -> None:
        """Finds the slow programs; stops, continues and lowers them as the others need it.

        others_wait: whether programs wait that could begin if the slow ones did not run.
        """
        for turn in turns:
            if not turn.slow and now >= turn.began + self._slice_sec:
                turn.slow = now - turn.began - turn.waited_sec() >= self._slice_sec
                turn.beside = turn.slow or now >= turn.began + PATIENCE * self._slice_sec
        slow = [turn for turn in turns if turn.slow]
        crowded = len(slow) > self.number
        self._slice_sec = SHORT_SLICE_SEC if crowded else SLICE_SEC
        number = Counter(turn.batch for turn in slow)
        # Only of those that still run: a slow program that has ended says nothing of a later crowd.
        first: dict[Batch, float] = {}
        for turn in slow:
            first[turn.batch] = min(first.get(turn.batch, turn.began), turn.began)
        for turn in slow:
            if turn.overtime:
                batch = turn.batch
                batch.crowded |= number[batch] > MANY * self.number
                batch.first_slow = first[batch]
                _stop_or_continue(turn, crowded and others_wait, now)
            if crowded and not turn.lowered:
                _lower_priority(turn)


def is_late(turn: Turn, now: float) -> bool:
    """Whether a program's time is over. If it is owed more, sets when to look at it again."""
    batch = turn.batch
    if turn.slow and turn.overtime and batch.crowded:
        together = batch.first_slow + turn.timeout_sec
        return now >= max(together, batch.last_began + LEAST * turn.timeout_sec)
    if now < turn.ends:
        return False
    if not is_owed_time(turn, now):
        return True
    turn.ends = now + RECHECK_SEC
    return False


def is_owed_time(turn: Turn, now: float) -> bool:
    """Whether a program at its deadline has spent part of it waiting for a core."""
    lasted_sec = now - turn.began
    if not turn.overtime or lasted_sec >= OVERTIME * turn.timeout_sec:
        return False
    stopped_sec = turn.stopped_sec + (now - turn.stopped_at if turn.stopped_at else 0.0)
    return lasted_sec - stopped_sec - turn.waited_sec() < turn.timeout_sec


def _stop_or_continue(turn: Turn, stop: bool, now: float) -> None:
    if stop == bool(turn.stopped_at):
        return
    turn.stopped_sec += now - turn.stopped_at if turn.stopped_at else 0.0
    turn.stopped_at = now if stop else 0.0
    number = signal.SIGSTOP if stop else signal.SIGCONT
    with contextlib.suppress(OSError):
        turn.send(number)
        os.kill(turn.tester_pid, number)


def _lower_priority(turn: Turn) -> None:
    turn.lowered = True
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, turn.tester_pid, LOW_PRIORITY)
        if turn.program_pid:  # the leader of a group of its own, which holds its threads
            os.setpriority(os.PRIO_PGRP, turn.program_pid, LOW_PRIORITY)
