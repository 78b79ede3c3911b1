"""Problems -> batches of prompts: shuffle, bucket, batch; the position is saved exactly.

Prompts are tokenised once, when the pipeline is made. Training batches are then a grain MapDataset
from batch number to batch. The number is the position to resume from, exact on any number of
processes. schedule.py says which problems a batch holds. Every process of a run draws the same
whole batch; sharding.py says which devices hold which of its rows. There are no worker threads or
processes: a batch costs some tens of microseconds.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from absl import logging

from score_jax.data import schedule
from score_jax.data.asked import encoded
from score_jax.problem import InputError, Problem
from score_jax.structs import PromptBatch

# A problem's text, its own prompt format, its given first attempt -> token ids of the first turn.
# The last two are empty for most problems. Those with a system text give it as `system=`.
Encode = Callable[..., list[int]]
_BATCHES = 2**62  # in a training run: no end


def batches(
    problems: Sequence[Problem],
    encode: Encode,
    *,
    batch: int,
    max_prompt_tokens: int,
    pad_id: int,
    seed: int,
    bucket_sizes: tuple[int, ...] = (),
    parts: Sequence[tuple[int, float]] = (),
    curriculum_steps: int = 0,
    steps_before: int = 0,
    prompts: "Prompts | None" = None,
    wanted: np.ndarray | None = None,
) -> "PromptIterator":
    """Endless shuffled batches for training; every epoch is a new permutation.

    Args:
      batch: problems per batch.
      max_prompt_tokens: longer prompts are left out, counted in `dropped` and logged.
      bucket_sizes: widths P that a batch may have, besides max_prompt_tokens: the smallest that
        holds the batch's prompts is taken.
      parts: (problems, weight) of each set of a mixture, one after the other in `problems`.
      curriculum_steps: batches until problems of all levels are drawn from.
      steps_before: how many of these earlier stages have drawn.
      prompts: the problems' tokens, where they are at hand.
      wanted: bool for each problem; the others are left out (problems.pass_rate).
    Raises: InputError if no prompt is short enough, or too few are for one global batch.
    """
    widths = _widths(bucket_sizes, max_prompt_tokens)
    prompts = prompts or tokenise(problems, encode)
    kept = usable(prompts, batch, max_prompt_tokens, wanted)
    dropped = int((prompts.length > max_prompt_tokens).sum())
    if dropped:
        logging.warning(
            "%d of %d training prompts are longer than max_prompt_tokens=%d and are left out; "
            "the longest has %d tokens.",
            dropped,
            len(problems),
            max_prompt_tokens,
            int(prompts.length.max()),
        )
    settings: dict[str, Any] = {}
    if curriculum_steps:
        settings = {"curriculum": [curriculum_steps, steps_before]}
        drawn = schedule.curriculum(
            problems,
            kept,
            steps=curriculum_steps,
            done=steps_before,
            batch=batch,
            seed=seed % 2**32,
        )
    elif len(parts) > 1:
        settings = {"mixture": [[size, weight] for size, weight in parts]}
        drawn = schedule.mixture(kept, parts, batch, seed % 2**32)
    else:
        drawn = schedule.plain(kept, batch, seed % 2**32)

    def assemble(number: int) -> PromptBatch:
        position_Q = drawn.positions(number)
        longest = prompts.length[position_Q].max()
        width = next(width for width in widths if width >= longest)
        return pack(prompts, position_Q, width, pad_id)

    dataset = grain.MapDataset.range(_BATCHES).map(assemble)
    identity = {
        "problems": len(kept),
        "global_batch": batch,
        "seed": seed,
        "digest": _digest(prompts, kept),
        **settings,
    }
    return PromptIterator(dataset, identity, dropped)


def usable(
    prompts: "Prompts", batch: int, max_prompt_tokens: int, wanted: np.ndarray | None = None
) -> np.ndarray:
    """The positions of training prompts that are short enough, and wanted.

    Raises: InputError if they are too few for a batch, or none.
    """
    kept = np.flatnonzero(prompts.length <= max_prompt_tokens)
    dropped = len(prompts.length) - len(kept)
    if wanted is not None and len(kept):
        fitting, kept = len(kept), kept[wanted[kept]]
        if len(kept) < batch:
            raise InputError(
                f"a step needs {batch} different problems, but of {fitting} only {len(kept)} have "
                "a pass rate within config.problems.pass_rate; collected/pass_rates.jsonl in the "
                "work directory has the rates. Widen the range, or lower "
                "config.rollout.problems_per_step, in another work directory."
            )
    if dropped and not len(kept):
        longest = int(prompts.length.max())
        raise InputError(
            f"all {dropped} prompts are longer than max_prompt_tokens={max_prompt_tokens} "
            f"(shortest {prompts.length.min()}, longest {longest} tokens), so there is nothing "
            f"to train on. Set config.rollout.max_prompt_tokens to {longest} to keep them all."
        )
    if len(kept) < batch:
        raise InputError(
            f"a step needs {batch} different problems, but the data set has {len(kept)} usable "
            f"ones ({dropped} are longer than max_prompt_tokens={max_prompt_tokens}). "
            f"Set config.rollout.problems_per_step to at most {len(kept)}."
        )
    return kept


def evaluation_prompts(
    problems: Sequence[Problem], encode: Encode, *, max_prompt_tokens: int, pad_id: int
) -> PromptBatch:
    """Every problem's prompt once, in order, as wide as the longest.

    Raises: InputError if a prompt is too long: leaving it out would change what is measured.
    """
    if not len(problems):
        raise InputError("there is no problem to evaluate on: the data set is empty.")
    prompts = tokenise(problems, encode)
    longest = int(prompts.length.max())
    if longest > max_prompt_tokens:
        too_long = int((prompts.length > max_prompt_tokens).sum())
        raise InputError(
            f"{too_long} of {len(problems)} evaluation prompts are longer than "
            f"max_prompt_tokens={max_prompt_tokens}. Leaving them out would measure the accuracy "
            f"on another data set. Set config.rollout.max_prompt_tokens to at least {longest}."
        )
    return pack(prompts, np.arange(len(problems)), longest, pad_id)


def tokenise(problems: Sequence[Problem], encode: Encode) -> "Prompts":
    """Encodes every problem's prompt."""
    rows = [encoded(problem, encode) for problem in problems]
    for problem, row in zip(problems, rows, strict=True):
        if not row:
            raise InputError(
                f"the prompt of problem {problem.id!r} has no tokens under this template, so "
                f"nothing can be sampled after it. Check its text and the tokenizer."
            )
    length = np.array([len(row) for row in rows], np.int32)
    return Prompts(
        problems=problems,
        tokens=np.array([token for row in rows for token in row], np.int32),
        start=np.cumsum(length, dtype=np.int64) - length,
        length=length,
    )


def pack(prompts: "Prompts", position_Q: np.ndarray, width: int, pad_id: int) -> PromptBatch:
    """The prompts at these positions as rows of `width` columns, padded on the right."""
    tokens_QP = np.full((len(position_Q), width), pad_id, np.int32)
    for row, position in enumerate(position_Q):
        start, length = prompts.start[position], prompts.length[position]
        tokens_QP[row, :length] = prompts.tokens[start : start + length]
    return PromptBatch(
        tokens=tokens_QP,
        length=prompts.length[position_Q],
        index=position_Q.astype(np.int32),
        problems=tuple(prompts.problems[position] for position in position_Q),
    )


def _widths(bucket_sizes: tuple[int, ...], max_prompt_tokens: int) -> list[int]:
    widths = sorted({*bucket_sizes, max_prompt_tokens})
    if widths[0] < 1 or widths[-1] > max_prompt_tokens:
        raise InputError(
            f"bucket_sizes={bucket_sizes} must be between 1 and max_prompt_tokens="
            f"{max_prompt_tokens}: no prompt is longer. Lower the buckets or raise "
            f"config.rollout.max_prompt_tokens."
        )
    return widths


def _digest(prompts: "Prompts", kept: np.ndarray) -> str:
    """A digest of the problems and their tokens, to which a saved position refers."""
    digest = hashlib.sha256(kept.tobytes() + prompts.length.tobytes() + prompts.tokens.tobytes())
    for problem in prompts.problems:
        digest.update(f"{problem.id}\0{problem.gold}\0".encode())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Every prompt of a data set as token ids, back to back: N prompts."""

    problems: Sequence[Problem]
    tokens: np.ndarray  # [sum of length] int32
    start: np.ndarray  # [N] int64, where a prompt's tokens begin
    length: np.ndarray  # [N] int32


class PromptIterator:
    """Training batches from a position that can be saved and restored; see `batches`."""

    def __init__(self, dataset: grain.MapDataset, identity: dict[str, Any], dropped: int):
        self.dropped = dropped  # prompts left out because they are too long
        self._dataset = dataset
        self._identity = identity
        self._next = 0  # number of the next batch

    def __iter__(self) -> "PromptIterator":
        return self

    def __next__(self) -> PromptBatch:
        batch = self._dataset[self._next]
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, and what identifies the data it belongs to; values that JSON can hold."""
        return {"next_batch": self._next, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a saved position. Raises: InputError if data, seed or batch have changed."""
        changed = [
            f"{name} was {state.get(name)!r} and is {self._identity.get(name)!r}"
            for name in dict.fromkeys([*self._identity, *state])
            if name != "next_batch" and state.get(name) != self._identity.get(name)
        ]
        if changed:
            raise InputError(
                f"the saved data position belongs to other data or settings: {'; '.join(changed)}. "
                f"Resuming from it would repeat or skip problems. Restore those settings, or start "
                f"in a new work directory."
            )
        number = state.get("next_batch")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InputError(f"the saved data position is damaged: next_batch={number!r}.")
        self._next = number
