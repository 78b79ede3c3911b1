"""Which problems a batch holds: one set, a mixture of sets, or harder levels step by step.

A `Stream` is an endless sequence of blocks, epoch after epoch, each epoch in a new order. All
problems of a block are different: problems left over after an epoch's last whole block are left
out. (The sampling keys depend on the problem: twice in one batch would give the same samples
twice.)

    epoch's order   7 2 9 4 | 0 5 3 8 | 6 1      10 problems, block = 4: two blocks an epoch

A `Schedule` takes each batch from the next blocks of its streams. Everything is computed from the
number of the batch, so that number alone is the position to resume from.

  mixture      one stream per set. A table for a cycle of 100 batches says how many problems of each
               batch come from which set; after every batch each set's count is within one problem
               of its share.
  curriculum   phases, each with one stream: first the easiest level alone, then one more level in
               each phase, all problems in the last.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from score_jax.problem import InputError, Problem

CYCLE = 100  # batches after which the counts of a mixture repeat
_LEVEL = re.compile(r"(?:[Ll]evel )?(\d+)")


class Stream:
    """Endless blocks of different positions."""

    def __init__(self, pool: np.ndarray, block: int, seed: tuple[int, ...]):
        """pool: what to draw from. block: positions per block; at most len(pool)."""
        self.pool, self.block, self.seed = pool, block, seed
        # One permutation an epoch is 0.1 ms for GSM8K; grain's element-wise shuffle 1 ms a batch.
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def take(self, number: int) -> np.ndarray:
        """Block `number`, counted from 0."""
        epoch, step = divmod(number, len(self.pool) // self.block)
        return self._order(epoch)[step * self.block : (step + 1) * self.block]

    def _shuffled(self, epoch: int) -> np.ndarray:
        seed, *stream = self.seed
        # Zeros at the end change nothing: stream (0, 0) is that of (seed, epoch) alone.
        draw = np.random.default_rng([seed, epoch, *stream])
        return self.pool[draw.permutation(len(self.pool))]


@dataclasses.dataclass(frozen=True)
class Phase:
    """The batches from `start` until the next phase begins."""

    start: int  # its first batch
    streams: tuple[Stream, ...]
    counts: np.ndarray  # [cycle, streams] positions of each stream in a batch of the cycle


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The positions of every batch."""

    phases: tuple[Phase, ...]

    def positions(self, number: int) -> np.ndarray:
        """Positions in the data set of batch `number`: all different."""
        phase = next(phase for phase in reversed(self.phases) if phase.start <= number)
        cycle, within = divmod(number - phase.start, len(phase.counts))
        used = phase.counts > 0
        # Blocks taken from each stream so far: one for every batch that took any of its problems.
        blocks = cycle * used.sum(axis=0) + used[:within].sum(axis=0)
        parts = [
            stream.take(int(block))[:count]
            for stream, block, count in zip(
                phase.streams, blocks, phase.counts[within], strict=True
            )
            if count
        ]
        # Each set is spread over the batch, so that every process gets a share of it.
        place = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in parts])
        return np.concatenate(parts)[np.argsort(place, kind="stable")]


def drawn(
    problems: Sequence[Problem],
    kept: np.ndarray,
    *,
    batch: int,
    seed: int,
    parts: Sequence[tuple[int, float]] = (),
    curriculum_steps: int = 0,
    steps_before: int = 0,
) -> Schedule:
    """The schedule that the settings ask for; arguments as of `pipeline.batches`.

    kept: positions of the problems that may be drawn.
    Raises: InputError if the problems do not fill it.
    """
    if curriculum_steps:
        return curriculum(
            problems, kept, steps=curriculum_steps, done=steps_before, batch=batch, seed=seed
        )
    return mixture(kept, parts, batch, seed) if len(parts) > 1 else plain(kept, batch, seed)


def plain(kept: np.ndarray, batch: int, seed: int) -> Schedule:
    """One stream of all kept problems."""
    return Schedule((Phase(0, (Stream(kept, batch, (seed,)),), np.array([[batch]])),))


def mixture(
    kept: np.ndarray, parts: Sequence[tuple[int, float]], batch: int, seed: int
) -> Schedule:
    """Draws from several problem sets in proportion to their weights.

    parts: (number of problems, weight) of each set, in the order of the sets in the data.
    """
    counts = shares([weight for _, weight in parts], batch)
    streams = []
    start = 0
    for number, ((size, weight), most) in enumerate(zip(parts, counts.max(axis=0), strict=True)):
        pool = kept[(start <= kept) & (kept < start + size)]
        start += size
        if not most:
            raise InputError(
                f"the weight {weight:g} of set {number + 1} of the mixture gives less than one "
                f"problem in {CYCLE} steps of {batch}. Raise it, or remove the set from "
                "config.problems.mixture."
            )
        if len(pool) < most:
            raise InputError(
                f"a step of {batch} problems takes {most} different ones from set {number + 1} of "
                f"the mixture (weight {weight:g}), but it has only {len(pool)} usable ones. Lower "
                "its weight or config.rollout.problems_per_step."
            )
        streams.append(Stream(pool, int(most), (seed, number)))
    return Schedule((Phase(0, tuple(streams), counts),))


def shares(weights: Sequence[float], batch: int) -> np.ndarray:
    """How many of a batch's problems come from each set: [CYCLE, sets], rows sum to `batch`.

    After every batch each set's total so far is within one problem of its exact share.
    """
    share = np.array(weights, float) / sum(weights)
    counts = np.zeros((CYCLE, len(share)), int)
    for step in range(CYCLE):
        owed = (step + 1) * batch * share - counts.sum(axis=0)
        counts[step] = np.maximum(np.floor(owed + 1e-9), 0)
        while counts[step].sum() < batch:
            counts[step, np.argmax(owed - counts[step])] += 1
        while counts[step].sum() > batch:  # a set above its share got 0, not less: others get less
            taken = np.where(counts[step] > 0, owed - counts[step], np.inf)
            counts[step, np.argmin(taken)] -= 1
    return counts


def curriculum(
    problems: Sequence[Problem], kept: np.ndarray, *, steps: int, done: int, batch: int, seed: int
) -> Schedule:
    """Harder levels join step by step: level k of L joins after (k - 1) * steps / L batches.

    Args:
      steps: batches until all levels have joined.
      done: batches of earlier stages; they count.
    Problems of unknown level ("Level ?", or no level) join in the last phase.
    Raises: InputError if there are fewer than two levels, or the easiest has too few problems to
      fill a batch.
    """
    level = np.array([_level(problems[position]) for position in kept])
    levels = sorted(set(level[np.isfinite(level)].tolist()))
    if len(levels) < 2:
        raise InputError(
            f"config.problems.curriculum_steps={steps} orders problems by level, but the training "
            f"problems have {len(levels)} different levels. Give them a 'level' (a number, or "
            "'Level N'), or set curriculum_steps to 0."
        )
    phases = []
    for number, hardest in enumerate(levels):
        last = number == len(levels) - 1
        pool = kept if last else kept[level <= hardest]
        if len(pool) < batch:
            raise InputError(
                f"a step needs {batch} different problems, but the curriculum begins with "
                f"{len(pool)}, up to level {hardest:g}. Set config.rollout.problems_per_step to at "
                f"most {len(pool)}, or config.problems.curriculum_steps to 0."
            )
        start = max(0, -(-number * steps // len(levels)) - done)
        # Counted from the end: the last phase is the same stream as without a curriculum.
        stream = Stream(pool, batch, (seed, 0, len(levels) - 1 - number))
        phases.append(Phase(start, (stream,), np.array([[batch]])))
    return Schedule(tuple(phases))


def _level(problem: Problem) -> float:
    text = problem.tags.get("level", "?")
    match = _LEVEL.fullmatch(text)
    if match:
        return float(match[1])
    if text not in ("?", "Level ?"):
        raise InputError(
            f"problem {problem.id!r} has the level {text!r}, which is not a number, so a "
            "curriculum cannot place it. Write 'Level N', N or '?', or set "
            "config.problems.curriculum_steps to 0."
        )
    return np.inf
