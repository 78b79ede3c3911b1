"""Asks workers questions of which each has a deadline of its own, from when a worker gets it.

For functions of the user's own, which may take seconds; deadlines.py is for algebra, whose hanging
questions share one deadline. pool.py has the workers.
"""

import contextlib
import heapq
import selectors
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from score_jax.rewards.workers import pool
from score_jax.rewards.workers.pool import Pool, SpawnerGone, Worker

BACK_OFF_SEC = 1.0  # before a question is asked a second time; doubles with every further time
FAILED = ("timeout", "crash")


def answers(
    start: Callable[[], Pool],
    questions: Sequence[tuple[Any, ...]],
    deadline_sec: float,
    *,
    retries: int = 0,
    fails: Callable[[str], bool] = lambda answer: answer in FAILED,
) -> Generator[tuple[int, str], None, None]:
    """(number, answer) of every question, as they come; each question is asked once.

    start: the pool; asked again if its processes were ended from outside.
    retries: how often a question whose answer `fails` is asked again.
    An answer is "timeout" if it took longer than deadline_sec, "crash" if the process died.
    Close the generator (contextlib.closing) to end what still runs.
    Raises: SpawnerGone, SpawnerFailed if the processes cannot be started.
    """
    asked = _Asked(start(), questions, deadline_sec)
    waiting = [(0.0, 0, index) for index in range(len(questions))]  # when, tries before, number
    restarted = False
    try:
        while waiting or asked.running:
            try:
                done = asked.more(waiting)
            except SpawnerGone:
                if restarted:
                    raise
                restarted = True
                pool.close(asked.pool)  # killed from outside: once more, with new processes
                for index, (_, _, tries) in asked.running.items():
                    heapq.heappush(waiting, (0.0, tries, index))
                asked = _Asked(start(), questions, deadline_sec)
                continue
            for index, tries, answer in done:
                if tries < retries and fails(answer):
                    again = time.monotonic() + BACK_OFF_SEC * 2**tries
                    heapq.heappush(waiting, (again, tries + 1, index))
                else:
                    yield index, answer
    finally:
        asked.end()


class _Asked:
    """The questions that run."""

    def __init__(self, workers: Pool, questions: Sequence[tuple[Any, ...]], deadline_sec: float):
        self.pool = workers
        self.running: dict[int, tuple[Worker, float, int]] = {}  # worker, when it began, tries
        self._questions = questions
        self._deadline_sec = deadline_sec

    def more(self, waiting: list[tuple[float, int, int]]) -> list[tuple[int, int, str]]:
        """Asks those that may run, waits for some; (number, tries, answer) of those that ended."""
        now = time.monotonic()
        while waiting and waiting[0][0] <= now and len(self.running) < self.pool.size:
            worker = self.pool.take(block=not self.running)
            if worker is None:
                break  # other threads have the rest
            _, tries, index = heapq.heappop(waiting)
            self.running[index] = (worker, time.monotonic(), tries)
            worker.ask(*self._questions[index])
        until = [began + self._deadline_sec for _, began, _ in self.running.values()]
        if waiting and len(self.running) < self.pool.size:
            until.append(max(waiting[0][0], time.monotonic() + 0.02))
        with selectors.DefaultSelector() as selector:
            for index, (worker, _, _) in self.running.items():
                selector.register(worker.questions, selectors.EVENT_READ, index)
            found = selector.select(max(0.0, min(until) - time.monotonic()))
        answered = {key.data for key, _ in found}
        return [*self._settle(answered)]

    def _settle(self, answered: set[int]) -> Iterator[tuple[int, int, str]]:
        now = time.monotonic()
        for index, (worker, began, tries) in list(self.running.items()):
            if index in answered:
                answer = worker.answer()
            elif now >= began + self._deadline_sec:
                answer = "timeout"
            else:
                continue
            del self.running[index]
            if answer in FAILED:
                self._discard(worker)
            else:
                self.pool.give_back(worker)
            yield index, tries, answer

    def end(self) -> None:
        """Ends what still runs."""
        for worker, _, _ in self.running.values():
            self._discard(worker)
        self.running.clear()

    def _discard(self, worker: Worker) -> None:
        with contextlib.suppress(SpawnerGone):  # then the worker has ended too; `more` finds out
            self.pool.discard(worker)
