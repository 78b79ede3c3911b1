"""Documents for supervised fine-tuning: a problem and its attempts, as rows of token ids.

Where they come from: corpora (here), a set's own solutions (solutions.py), samples (filters.py).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from score_jax.data import schedule
from score_jax.data.sets import arithmetic, running_total
from score_jax.data.sets.arithmetic import Document
from score_jax.problem import InputError
from score_jax.structs import Batch
from score_jax.text.templates import Template

# Generated corpora: (problem set, prompt) -> a function (seed, step, count) -> a step's documents.
CORPORA: dict[tuple[str, str], Callable[[int, int, int], Sequence[Document]]] = {
    (arithmetic.NAME, "arithmetic"): arithmetic.documents,
    (arithmetic.NAME, "arithmetic_selective"): arithmetic.documents_with_verdicts,
    (running_total.NAME, running_total.NAME): running_total.documents,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A document as token ids."""

    prompt: tuple[int, ...]  # up to where attempt 1 begins
    attempts: tuple[tuple[int, ...], ...]  # end tokens included; may be empty, or fewer than below
    truncated: tuple[bool, ...]  # whether the attempt was truncated, so has no end token
    learned: tuple[float, ...]  # weight of the attempt in the loss
    # Ids before attempts 2, 3, …, where each problem has its own: one for all, or one for each.
    instructions: tuple[tuple[int, ...], ...] = ()

    def before(self, attempt: int) -> tuple[int, ...]:
        """Its own instruction before attempt 2, 3, …"""
        return self.instructions[min(attempt - 2, len(self.instructions) - 1)]


def of_corpus(
    name: str, prompt: str, template: Template, *, seed: int, step: int, rows: int
) -> list[Row]:
    """The documents of one step of a corpus; all attempts have weight 1."""
    return [
        Row(
            prompt=tuple(template.first_turn(document.prompt)),
            attempts=tuple(tuple(template.attempt_ids(text)) for text in document.attempts),
            truncated=(False,) * len(document.attempts),
            learned=(1.0,) * len(document.attempts),
        )
        for document in CORPORA[name, prompt](seed, step, rows)
    ]


def order(pool: np.ndarray, rows: int, seed: tuple[int, ...]) -> schedule.Stream:
    """In which order documents are learned, `rows` a step; few fill a step by repetition."""
    return schedule.Stream(np.tile(pool, -(-rows // len(pool))), rows, seed)


def pack(
    rows: Sequence[Row],
    template: Template,
    before: Callable[[int], Sequence[int]],
    *,
    columns: int,
    max_attempt_tokens: int,
) -> Batch:
    """Documents as a Batch, laid out as if they had been sampled.

    An attempt's reward is its weight in the loss; a row may end before its last attempt.

    Args:
      before: gives the instruction before attempt 2, 3, …, of rows without their own.
      columns: T, tokens in a row.
    Raises: InputError if a document is longer than a row, or an attempt than max_attempt_tokens.
    """
    text = template.tokenizer
    shape = (len(rows), columns)
    tokens_BT = np.full(shape, text.pad_id, np.int32)
    attempt_BT = np.zeros(shape, np.int32)
    length_B = np.zeros(len(rows), np.int32)
    for b, row in enumerate(rows):
        ids, marks = list(row.prompt), [0] * len(row.prompt)
        for a, written in enumerate(row.attempts, start=1):
            if a > 1:
                closing = template.closing_ids(row.attempts[a - 2], row.truncated[a - 2])
                turn = [*closing, *(row.before(a) if row.instructions else before(a))]
                ids += turn
                marks += [0] * len(turn)
            if len(written) > max_attempt_tokens:
                raise InputError(
                    f"a document's attempt has {len(written)} tokens, end token included, but "
                    f"config.rollout.max_attempt_tokens={max_attempt_tokens}: raise it. The "
                    f"attempt begins: {text.decode(list(written))[:80]!r}"
                )
            ids += written
            marks += [a] * len(written)
        if len(ids) > columns:
            raise InputError(
                f"a document of {len(ids)} tokens does not fit a row of {columns}: raise "
                f"config.rollout.max_prompt_tokens. It begins: "
                f"{text.decode(list(row.prompt))[:80]!r}"
            )
        tokens_BT[b, : len(ids)] = ids
        attempt_BT[b, : len(ids)] = marks
        length_B[b] = len(ids)
    fields: dict[str, Any] = {  # numpy; the caller puts them onto devices
        "tokens": tokens_BT,
        "attempt": attempt_BT,
        "logp": np.zeros(shape, np.float32),
        "length": length_B,
        "reward": np.array([row.learned for row in rows], np.float32),
        "truncated": np.array([row.truncated for row in rows], bool),
    }
    return Batch(**fields)
