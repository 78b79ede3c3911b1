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
from score_jax.structs import Instructions, PromptBatch

# A problem's text, its own prompt format, its given first attempt -> token ids of the first turn.
# The last two are empty for most problems. Those with a system text give it as `system=`.
Encode = Callable[..., list[int]]
# The text before a later attempt -> the token ids between the attempts: a template's `turn`.
Turn = Callable[[str], list[int]]
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
    turn: Turn | None = None,
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
      turn: needed where problems have instructions of their own.
    Raises: InputError if no prompt is short enough, or too few are for one global batch.
    """
    widths = _widths(bucket_sizes, max_prompt_tokens)
    prompts = prompts or tokenise(problems, encode, turn)
    kept = usable(prompts, batch, max_prompt_tokens, wanted)
    dropped = int((prompts.length > max_prompt_tokens).sum())
    widest = prompts.instruction_tokens(max_prompt_tokens)
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
    elif len(parts) > 1:
        settings = {"mixture": [[size, weight] for size, weight in parts]}
    drawn = schedule.drawn(
        problems,
        kept,
        batch=batch,
        seed=seed % 2**32,
        parts=parts,
        curriculum_steps=curriculum_steps,
        steps_before=steps_before,
    )

    def assemble(number: int) -> PromptBatch:
        position_Q = drawn.positions(number)
        longest = prompts.length[position_Q].max()
        width = next(width for width in widths if width >= longest)
        return pack(prompts, position_Q, width, pad_id, widest)

    dataset = grain.MapDataset.range(_BATCHES).map(assemble)
    identity = {
        "problems": len(kept),
        "global_batch": batch,
        "seed": seed,
        "digest": digest(prompts, kept),
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
    problems: Sequence[Problem],
    encode: Encode,
    *,
    max_prompt_tokens: int,
    pad_id: int,
    turn: Turn | None = None,
    max_instruction_tokens: int = 0,
) -> PromptBatch:
    """Every problem's prompt once, in order, as wide as the longest.

    turn, max_instruction_tokens: needed where problems have instructions of their own.
    Raises: InputError if a prompt is too long: leaving it out would change what is measured.
    """
    if not len(problems):
        raise InputError("there is no problem to evaluate on: the data set is empty.")
    prompts = tokenise(problems, encode, turn)
    longest = int(prompts.length.max())
    if longest > max_prompt_tokens:
        too_long = int((prompts.length > max_prompt_tokens).sum())
        raise InputError(
            f"{too_long} of {len(problems)} evaluation prompts are longer than "
            f"max_prompt_tokens={max_prompt_tokens}. Leaving them out would measure the accuracy "
            f"on another data set. Set config.rollout.max_prompt_tokens to at least {longest}."
        )
    check_instructions(prompts, max_prompt_tokens, max_instruction_tokens)
    return pack(prompts, np.arange(len(problems)), longest, pad_id)


def check_instructions(
    prompts: "Prompts", max_prompt_tokens: int, max_instruction_tokens: int
) -> None:
    """Raises: InputError, naming the problem, if an instruction of its own is too long.

    Those of problems whose prompts are too long do not matter.
    """
    for found in prompts.instructions:
        length = np.where(prompts.length <= max_prompt_tokens, found.length, 0)
        longest = int(np.argmax(length))
        if length[longest] > max_instruction_tokens:
            problem = prompts.problems[longest]
            raise InputError(
                f"{problem.where or f'problem {problem.id!r}'}: the instruction with the fields of "
                f"this row has {length[longest]} tokens, and rows have room for "
                f"{max_instruction_tokens}: what the instruction has without them, and "
                f"config.rollout.max_prompt_tokens={max_prompt_tokens} for the fields. Raise that "
                f"by {length[longest] - max_instruction_tokens}, or leave a long field out of "
                "config.problems.instruction_text."
            )


def tokenise(problems: Sequence[Problem], encode: Encode, turn: Turn | None = None) -> "Prompts":
    """Encodes every problem's prompt, and its own instructions if it has any (`turn`)."""
    found = _flat(problems, "prompt", [encoded(problem, encode) for problem in problems])
    counts = {len(problem.instructions) for problem in problems}
    if counts == {0}:
        return found
    if turn is None or len(counts) > 1:
        raise ValueError(
            "some problems have the instruction of their row and others have none; data/asked.py "
            "makes them for all problems of a run."
        )
    own = [
        _flat(problems, "instruction", [turn(problem.instructions[c]) for problem in problems])
        for c in range(counts.pop())
    ]
    return dataclasses.replace(found, instructions=tuple(own))


def _flat(problems: Sequence[Problem], what: str, rows: Sequence[Sequence[int]]) -> "Prompts":
    for problem, row in zip(problems, rows, strict=True):
        if not row:
            raise InputError(
                f"the {what} of problem {problem.id!r} has no tokens under this template, so "
                f"nothing can be sampled after it. Check its text and the tokenizer."
            )
    length = np.array([len(row) for row in rows], np.int32)
    return Prompts(
        problems=problems,
        tokens=np.array([token for row in rows for token in row], np.int32),
        start=np.cumsum(length, dtype=np.int64) - length,
        length=length,
    )


def pack(
    prompts: "Prompts", position_Q: np.ndarray, width: int, pad_id: int, instruction_tokens: int = 0
) -> PromptBatch:
    """The prompts at these positions as rows of `width` columns, padded on the right.

    instruction_tokens: the width of their own instructions; 0: the longest of them.
    """
    own = None
    if prompts.instructions:
        widest = max(int(one.length[position_Q].max()) for one in prompts.instructions)
        widest = instruction_tokens or widest
        parts = [_padded(one, position_Q, widest, pad_id) for one in prompts.instructions]
        lengths = [one.length[position_Q] for one in prompts.instructions]
        own = Instructions(np.stack(parts, axis=1), np.stack(lengths, axis=1))
    return PromptBatch(
        tokens=_padded(prompts, position_Q, width, pad_id),
        length=prompts.length[position_Q],
        index=position_Q.astype(np.int32),
        problems=tuple(prompts.problems[position] for position in position_Q),
        instructions=own,
    )


def _padded(prompts: "Prompts", position_Q: np.ndarray, width: int, pad_id: int) -> np.ndarray:
    tokens_QP = np.full((len(position_Q), width), pad_id, np.int32)
    for row, position in enumerate(position_Q):
        start, length = prompts.start[position], prompts.length[position]
        tokens_QP[row, :length] = prompts.tokens[start : start + length]
    return tokens_QP


def _widths(bucket_sizes: tuple[int, ...], max_prompt_tokens: int) -> list[int]:
    widths = sorted({*bucket_sizes, max_prompt_tokens})
    if widths[0] < 1 or widths[-1] > max_prompt_tokens:
        raise InputError(
            f"bucket_sizes={bucket_sizes} must be between 1 and max_prompt_tokens="
            f"{max_prompt_tokens}: no prompt is longer. Lower the buckets or raise "
            f"config.rollout.max_prompt_tokens."
        )
    return widths


def digest(prompts: "Prompts", kept: np.ndarray) -> str:
    """A digest of the problems and their tokens, to which a saved position refers."""
    found = hashlib.sha256(kept.tobytes())
    for one in (prompts, *prompts.instructions):
        found.update(one.length.tobytes() + one.tokens.tobytes())
    for problem in prompts.problems:
        found.update(f"{problem.id}\0{problem.gold}\0".encode())
    return found.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Every prompt of a data set as token ids, back to back: N prompts."""

    problems: Sequence[Problem]
    tokens: np.ndarray  # [sum of length] int32
    start: np.ndarray  # [N] int64, where a prompt's tokens begin
    length: np.ndarray  # [N] int32
    # In the same form what comes before later attempts, where each problem has its own: one for all
    # of them, or one for each.
    instructions: tuple["Prompts", ...] = ()

    def instruction_tokens(self, max_prompt_tokens: int) -> int:
        """Of the longest own instruction of a problem whose prompt is not too long; 0: no own."""
        kept = self.length <= max_prompt_tokens
        return max((int(one.length[kept].max(initial=0)) for one in self.instructions), default=0)


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

    def blank(self, width: int) -> PromptBatch:
        """Prompts of that width that say nothing: what a batch is compiled for."""
        first = self._dataset[0]
        rows = np.zeros(len(first.tokens), np.int32)
        tokens_QP = np.zeros((len(rows), width), np.int32)
        return PromptBatch(tokens_QP, rows + 1, rows, (), first.instructions)

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
