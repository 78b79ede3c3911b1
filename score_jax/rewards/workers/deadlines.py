"""Asks workers many questions of algebra, under one deadline that hanging questions cannot extend.

pool.py has the workers; algebra.py does their work.
"""

import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from score_jax.rewards.workers import pool
from score_jax.rewards.workers.pool import Pool, SpawnerGone, Worker

DEADLINE_SEC = 3.0
FIRST_SEC = 0.5  # what each question of a large batch gets before any gets more

Pair = tuple[str, str]  # normalised gold and answer


def decide(pairs: Sequence[Pair], deadline_sec: float = DEADLINE_SEC) -> list[str]:
    """A reason for each pair, decided by algebra; see ask."""
    return ask(pool.ALGEBRA, pairs, deadline_sec, oddness=_oddness)


def ask(
    work: tuple[str, ...],
    questions: Sequence[tuple[Any, ...]],
    deadline_sec: float,
    *,
    oddness: Callable[[Any], int] = lambda question: 0,
) -> list[str]:
    """An answer to each question; "timeout" if it came too late, "crash" if the process died.

    A single question has the whole deadline. Of many, each first gets FIRST_SEC, plain ones before
    odd ones, and those that need longer are asked again at the end. The time lost to killed
    questions is at most one deadline per worker, plus half of the time that answered ones took.
    When it is used up, the rest time out. So a batch of hanging answers takes one deadline in all.
    Raises: SpawnerGone if the processes cannot be started.
    """
    order = sorted(range(len(questions)), key=lambda index: oddness(questions[index]))
    workers = pool.shared(work)
    try:
        return _Batch(workers, questions, deadline_sec).ask(order)
    except SpawnerGone:
        pool.close(workers)  # killed from outside: once more, with new processes
        return _Batch(pool.shared(work), questions, deadline_sec).ask(order)


def _oddness(pair: Pair) -> int:
    answer = pair[1]
    return len(answer) + 50 * (answer.count("^") + answer.count("!") + answer.count("binom"))


class _Batch:
    """One call's questions: those that run, and the time that hanging ones may still cost."""

    def __init__(self, workers: Pool, questions: Sequence[tuple[Any, ...]], deadline_sec: float):
        self._pool = workers
        self._questions = questions
        self._deadline_sec = deadline_sec
        self._width = max(1, min(workers.size, len(questions)))
        self._spare_sec = deadline_sec * self._width
        self._reasons = ["timeout"] * len(questions)
        self._running: dict[int, tuple[Worker, float]] = {}  # question → its worker, when it began

    def ask(self, order: list[int]) -> list[str]:
        """The answers to all questions, asked in that order."""
        if len(order) <= self._width:
            self._run(order, self._deadline_sec)
        else:
            late = self._run(order, min(FIRST_SEC, self._deadline_sec))
            longer_sec = min(self._deadline_sec, self._spare_sec / self._width)
            if late and longer_sec > FIRST_SEC:
                self._run(late, longer_sec)
        return self._reasons

    def _run(self, questions: Sequence[int], slice_sec: float) -> list[int]:
        """Asks the questions, each for at most slice_sec; returns those that took longer."""
        waiting = deque(questions)
        late: list[int] = []
        try:
            while waiting or self._running:
                self._fill(waiting, slice_sec)
                if not self._running:
                    break  # hanging questions have used up the time
                answered = self._wait(slice_sec, more=bool(waiting))
                late.extend(self._settle(answered, slice_sec))
        finally:
            for worker, _ in self._running.values():  # only on an exception, such as Ctrl-C
                self._pool.discard(worker)
            self._running.clear()
        return late

    def _fill(self, waiting: deque[int], slice_sec: float) -> None:
        while waiting and len(self._running) < self._width:
            if (len(self._running) + 1) * slice_sec > self._spare_sec + 1e-6:
                return
            worker = self._pool.take(block=not self._running)
            if worker is None:
                return  # other threads have the rest
            index = waiting.popleft()
            worker.ask(*self._questions[index])
            self._running[index] = (worker, time.monotonic())

    def _wait(self, slice_sec: float, more: bool) -> set[int]:
        """Waits until one is answered, or the oldest has used its slice; returns those answered."""
        oldest = min(began for _, began in self._running.values())
        patience_sec = max(0.0, oldest + slice_sec - time.monotonic())
        if more and len(self._running) < self._width:
            patience_sec = min(patience_sec, 0.02)  # another thread may give a worker back
        with selectors.DefaultSelector() as selector:
            for index, (worker, _) in self._running.items():
                selector.register(worker.questions, selectors.EVENT_READ, index)
            return {key.data for key, _ in selector.select(patience_sec)}

    def _settle(self, answered: set[int], slice_sec: float) -> list[int]:
        now = time.monotonic()
        late = []
        for index, (worker, began) in list(self._running.items()):
            if index in answered:
                self._reasons[index] = worker.answer()
                self._spare_sec += (now - began) / 2
                del self._running[index]
                if self._reasons[index] == "crash":
                    self._pool.discard(worker)
                else:
                    self._pool.give_back(worker)
            elif now >= began + slice_sec:
                self._spare_sec -= now - began
                del self._running[index]
                self._pool.discard(worker)
                late.append(index)
        return late
