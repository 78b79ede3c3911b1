"""Every sample of a set of problems through one queue, graded as rows end and kept as they are.

    kept = Kept(run.folder / "evaluations" / "base.part.jsonl", of={"step": 0, …})
    records = of_every_sample(experiment, params, prompts, make, …, part="greedy", kept=kept)
    kept.remove()                       once the results are written

`make` turns rows into records, JSON values. A process that is stopped or killed loses the rows that
were being decoded; the next one reads the others' records from the file and decodes the rest.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import grading, jsonfiles
from score_jax.experiment import Experiment
from score_jax.grading import OwnRows
from score_jax.rollout.engine import Batches, Engine
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.stream import Ended, Stream
from score_jax.runtime import hosts
from score_jax.structs import Params, PromptBatch
from score_jax.workdir import spool

SHOW_SEC = 10.0  # between lines that say how far it is

Records = dict[int, Any]  # of samples, by number: sample g of problem q is q * G + g


class Kept:
    """The records of an evaluation that is not complete, in a file.

    Every process of a run calls all methods; process 0 reads and writes.
    """

    def __init__(self, path: Path | None, of: Mapping[str, Any] | None = None):
        """Args:

        path: None keeps nothing.
        of: what the records depend on; those of anything else are dropped.
        """
        self._path, self._of = path, json.loads(json.dumps(of or {}))
        self._found: dict[str, Records] = hosts.lead_says(self.read) if path else {}
        if path and hosts.is_lead():
            lines = [
                {"part": part, "item": item, "record": record}
                for part, records in self._found.items()
                for item, record in sorted(records.items())
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            jsonfiles.write_lines(path, [{"of": self._of}, *lines])

    def read(self) -> dict[str, Records]:
        """The records of each part in the file; none of anything else."""
        if not self._path or not self._path.exists():
            return {}
        found: dict[str, Records] = {}
        for number, line in enumerate(self._path.read_bytes().splitlines()):
            try:
                row = json.loads(line.decode("ascii"))
                if number:
                    found.setdefault(row["part"], {})[int(row["item"])] = row["record"]
            except (ValueError, KeyError, TypeError):  # torn by a crash, or damaged
                break
            if number == 0 and row != {"of": self._of}:
                break
        return found

    def of(self, part: str) -> Records:
        """The records of a part: what is done of it."""
        return {int(item): record for item, record in self._found.get(part, {}).items()}

    def add(self, part: str, items: Sequence[int], records: Sequence[Any]) -> None:
        """Appends records of a part."""
        if not self._path or not hosts.is_lead():
            return
        with open(self._path, "a", encoding="ascii") as file:
            for item, record in zip(items, records, strict=True):
                file.write(jsonfiles.line({"part": part, "item": item, "record": record}))
        spool.written(self._path)

    def remove(self) -> None:
        """Removes the file: what it was for is complete."""
        if self._path and hosts.is_lead():
            self._path.unlink(missing_ok=True)


def whole(path: Path, say: Callable[[str], None]) -> list[dict[str, Any]] | None:
    """The rows of a complete file of `jsonfiles.write_counted`, on every process; else None.

    A file that is not whole is renamed, and `say` tells it: what it was for is done again.
    """

    def read() -> list[dict[str, Any]] | None:
        try:
            return jsonfiles.read_counted(path) if path.exists() else None
        except (ValueError, IsADirectoryError) as error:
            say(jsonfiles.set_aside(path, str(error)))
            return None

    return hosts.lead_says(read)


class Countdown:
    """Says every few seconds how far an evaluation is, and how long the rest takes."""

    def __init__(
        self,
        say: Callable[[str], None] | None,
        what: str,
        every_sec: float = SHOW_SEC,
        *,
        goes_on: Callable[[], None] = lambda: None,
    ):
        """Args:

        goes_on: called whenever rows have ended, for a watchdog.
        """
        self._say, self._what, self._every_sec, self._goes_on = say, what, every_sec, goes_on
        self._done = -1
        self._first: tuple[float, int] | None = None
        self._last = time.monotonic()

    def show(self, done: int, of: int, together: int = 0) -> None:
        """`evaluating base 64/500, 0:40 left`; the rest is estimated from what this process did.

        together: decoded together. Before as many have ended, or half of all, few have, and an
        estimate would be many times too long.
        """
        if done != self._done:
            self._done = done
            self._goes_on()
        now = time.monotonic()
        self._first = self._first or (now, done)  # later, as the first rows wait for compiling
        began, before = self._first
        if self._say and now - self._last >= self._every_sec and done < of:
            self._last = now
            ended, left = done - before, 0.0
            if ended and ended >= min(together, of // 2):
                left = (of - done) * (now - began) / ended
            minutes, seconds = divmod(round(left), 60)
            rest = f", {minutes}:{seconds:02} left" if left else ""
            self._say(f"{self._what} {done}/{of}{rest}")


def of_every_sample(
    experiment: Experiment,
    params: Params,
    prompts: PromptBatch,
    make: Callable[[OwnRows], Sequence[Any]],
    *,
    settings: EpisodeSettings,
    key: jax.Array,
    rows: int,
    training: bool = False,
    engine: Engine | None = None,
    part: str = "",
    kept: Kept | None = None,
    together: int = 1,
    prompt_tokens: int = 0,
    stop: Callable[[], bool] = lambda: False,
    countdown: Countdown | None = None,
) -> list[Any]:
    """The records of all samples of all problems, in order, on every process.

    Args:
      make: the records of rows of this process, JSON values.
      rows: decoded together, at most.
      training: whether this process trains too; then it shares the steps' program where it can.
      engine: samples in place of this process; it has the weights, and params are not read.
      part: under which the records are kept.
      together: `make` gets at least so many rows of all processes at a time, but for the last ones.
      prompt_tokens: as of `Stream`.
      stop: asked every few seconds; what has ended by then is kept.
    Raises: Interrupted if `stop` said so.
    """
    samples = len(prompts.tokens) * settings.samples
    shares = training and experiment.shares_rollout(settings, rows, samples)
    step = experiment.settings.rollout
    prompt_tokens = max(prompt_tokens, step.max_prompt_tokens if shares else 0)
    rows = step.rows if shares else experiment.evaluation_rows(rows, samples)
    kept = kept or Kept(None)
    found = kept.of(part)
    items = [item for item in range(samples) if item not in found]
    how: dict[str, Any] = {"settings": settings, "rows": rows, "items": items}
    stream: Stream | Batches
    if engine:
        stream = Batches(engine, prompts, key, **how)
    else:
        how |= {"mesh": experiment.mesh, "prompt_tokens": prompt_tokens, "looks": True}
        stream = Stream(params, prompts, key, **how)
    waiting: list[Ended] = []
    left = len(stream)
    for ended in stream:
        stopping = stop()
        waiting += [ended] if len(ended.item_M) else []
        count = sum(len(one.item_M) for one in waiting)
        if count and (stopping or count >= min(together, left)):
            left -= count
            own, items = _own(experiment, prompts, waiting, settings.samples)
            records = own.in_order(jsonfiles.plain(list(make(own))))
            waiting = []
            kept.add(part, items, records)
            found.update(zip(items, records, strict=True))
        if countdown:
            countdown.show(len(found), samples, rows)
        if stopping:
            raise hosts.Interrupted
    return [found[item] for item in range(samples)]


def _own(
    experiment: Experiment, prompts: PromptBatch, waiting: Sequence[Ended], samples: int
) -> tuple[OwnRows, list[int]]:
    """This process's rows of those that ended, and the numbers of all of them."""
    item_N = np.concatenate([ended.item_N for ended in waiting])
    order_N = np.argsort(item_N)
    rows = jax.tree.map(
        lambda *parts: np.concatenate(parts)[order_N], *[ended.rows for ended in waiting]
    )
    problems = [prompts.problems[item // samples] for item in item_N[order_N]]
    items = np.sort(np.concatenate([ended.item_M for ended in waiting])).tolist()
    return grading.decoded(experiment, rows, item_N[order_N], problems), items
