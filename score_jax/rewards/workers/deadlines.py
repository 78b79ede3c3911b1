"""Asks many questions at once, under one deadline that hanging ones cannot stretch.

The processes are pool.py's; what they do is algebra.py's, or functions.py's.
"""

import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from score_jax.rewards.workers import pool
from score_jax.rewards.workers.pool import HatcheryGone, Lane, Pool

DEADLINE_SEC = 3.0
FIRST_SEC = 0.5  # what each question of a large batch gets before any gets more

Pair = tuple[str, str]  # normalised gold and answer


def decide(pairs: Sequence[Pair], deadline_sec: float = DEADLINE_SEC) -> list[str]:
    """A reason for each pair, worked out by algebra; see ask."""
    return ask(pool.ALGEBRA, pairs, deadline_sec, oddness=_oddness)


def ask(
    work: tuple[str, ...],
    questions: Sequence[tuple[Any, ...]],
    deadline_sec: float,
    *,
    oddness: Callable[[Any], int] = lambda question: 0,
) -> list[str]:
    """An answer to each question; "timeout" if not given in time, "crash" if the process died.

    A question alone has the whole deadline. Of many, each first gets FIRST_SEC, plain ones before
    odd ones, and those that need longer are asked once more at the end. The time lost to questions
    that are killed is at most one deadline per lane, plus half of what the answered ones took; when
    it is used up, the rest time out. So a batch full of hanging answers waits one deadline in all.
    Raises: HatcheryGone if the processes cannot be started.
    """
    order = sorted(range(len(questions)), key=lambda index: oddness(questions[index]))
    lanes = pool.shared(work)
    try:
        return _ask(lanes, questions, order, deadline_sec)
    except HatcheryGone:
        pool.close(lanes)  # killed from outside: once more, with new processes
        return _ask(pool.shared(work), questions, order, deadline_sec)


def _ask(
    lanes: Pool, questions: Sequence[tuple[Any, ...]], order: list[int], deadline_sec: float
) -> list[str]:
    batch = _Batch(lanes, questions, deadline_sec)
    if len(questions) <= batch.width:
        batch.run(order, deadline_sec)
    else:
        late = batch.run(order, min(FIRST_SEC, deadline_sec))
        longer_sec = min(deadline_sec, batch.spare_sec / batch.width)
        if late and longer_sec > FIRST_SEC:
            batch.run(late, longer_sec)
    return batch.reasons


def _oddness(pair: Pair) -> int:
    answer = pair[1]
    return len(answer) + 50 * (answer.count("^") + answer.count("!") + answer.count("binom"))


class _Batch:
    """One call's questions: those running, and the time that may still be lost to hanging ones."""

    def __init__(self, lanes: Pool, questions: Sequence[tuple[Any, ...]], deadline_sec: float):
        self.lanes = lanes
        self.questions = questions
        self.width = max(1, min(lanes.lanes, len(questions)))
        self.spare_sec = deadline_sec * self.width
        self.reasons = ["timeout"] * len(questions)
        self._running: dict[int, tuple[Lane, float]] = {}  # question → its lane, when it began

    def run(self, questions: Sequence[int], slice_sec: float) -> list[int]:
        """Asks the questions, each for at most slice_sec; returns those that took longer."""
        waiting = deque(questions)
        late: list[int] = []
        try:
            while waiting or self._running:
                self._fill(waiting, slice_sec)
                if not self._running:
                    break  # no time is left to lose
                answered = self._wait(slice_sec, more=bool(waiting))
                late.extend(self._settle(answered, slice_sec))
        finally:
            for lane, _ in self._running.values():  # only on an exception, Ctrl-C for one
                self.lanes.discard(lane)
            self._running.clear()
        return late

    def _fill(self, waiting: deque[int], slice_sec: float) -> None:
        while waiting and len(self._running) < self.width:
            if (len(self._running) + 1) * slice_sec > self.spare_sec + 1e-6:
                return
            lane = self.lanes.take(block=not self._running)
            if lane is None:
                return  # other threads hold the rest
            index = waiting.popleft()
            lane.ask(*self.questions[index])
            self._running[index] = (lane, time.monotonic())

    def _wait(self, slice_sec: float, more: bool) -> set[int]:
        """The questions that are answered by the time the oldest has used its slice."""
        oldest = min(began for _, began in self._running.values())
        patience_sec = max(0.0, oldest + slice_sec - time.monotonic())
        if more and len(self._running) < self.width:
            patience_sec = min(patience_sec, 0.02)  # another thread may give a lane back
        with selectors.DefaultSelector() as selector:
            for index, (lane, _) in self._running.items():
                selector.register(lane.questions, selectors.EVENT_READ, index)
            return {key.data for key, _ in selector.select(patience_sec)}

    def _settle(self, answered: set[int], slice_sec: float) -> list[int]:
        now = time.monotonic()
        late = []
        for index, (lane, began) in list(self._running.items()):
            if index in answered:
                self.reasons[index] = lane.answer()
                self.spare_sec += (now - began) / 2
                del self._running[index]
                if self.reasons[index] == "crash":
                    self.lanes.discard(lane)
                else:
                    self.lanes.give_back(lane)
            elif now >= began + slice_sec:
                self.spare_sec -= now - began
                del self._running[index]
                self.lanes.discard(lane)
                late.append(index)
        return late
