"""Documents to learn from as they stand (SFT): a problem and its attempts, as rows of token ids."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from score_jax.data import arithmetic
from score_jax.data.arithmetic import Document
from score_jax.problem import InputError
from score_jax.structs import Batch
from score_jax.text.templates import Template

# Problem sets that have documents: (seed, step, count) -> that step's documents.
SOURCES: dict[str, Callable[[int, int, int], Sequence[Document]]] = {
    arithmetic.NAME: arithmetic.documents,
}


def batch(
    name: str,
    template: Template,
    *,
    seed: int,
    step: int,
    rows: int,
    columns: int,
    max_attempt_tokens: int,
) -> Batch:
    """The documents of one step, laid out as the sampler would have written them; reward 1.

    Args:
      columns: T; every document must fit, and every attempt into `max_attempt_tokens`.
    """
    if name not in SOURCES:
        raise InputError(
            f"the problem set '{name}' has no documents for an SFT stage; those that have: "
            f"{', '.join(SOURCES)}. Take the stage out of config.recipe."
        )
    return pack(SOURCES[name](seed, step, rows), template, columns, max_attempt_tokens)


def pack(
    documents: Sequence[Document], template: Template, columns: int, max_attempt_tokens: int
) -> Batch:
    """Documents as a Batch whose every attempt has reward 1."""
    text = template.tokenizer
    shape = (len(documents), columns)
    tokens_BT = np.full(shape, text.pad_id, np.int32)
    attempt_BT = np.zeros(shape, np.int32)
    length_B = np.zeros(len(documents), np.int32)
    attempts = len(documents[0].attempts)
    for b, document in enumerate(documents):
        ids, marks = list(template.first_turn(document.prompt)), []
        marks = [0] * len(ids)
        for a, attempt in enumerate(document.attempts, start=1):
            if a > 1:
                ids += template.instruction_ids
                marks += [0] * len(template.instruction_ids)
            written = template.attempt_ids(attempt)
            if len(written) > max_attempt_tokens:
                raise InputError(
                    f"a document's attempt has {len(written)} tokens, end token included, and "
                    f"config.rollout.max_attempt_tokens={max_attempt_tokens}: raise it. The "
                    f"attempt begins: {attempt[:80]!r}"
                )
            ids += written
            marks += [a] * len(written)
        if len(ids) > columns:
            raise InputError(
                f"a document of {len(ids)} tokens does not fit a row of {columns}: raise "
                f"config.rollout.max_prompt_tokens. It begins: {document.prompt[:80]!r}"
            )
        tokens_BT[b, : len(ids)] = ids
        attempt_BT[b, : len(ids)] = marks
        length_B[b] = len(ids)
    fields: dict[str, Any] = {  # numpy; the caller puts them onto devices
        "tokens": tokens_BT,
        "attempt": attempt_BT,
        "logp": np.zeros(shape, np.float32),
        "length": length_B,
        "reward": np.ones((len(documents), attempts), np.float32),
        "truncated": np.zeros((len(documents), attempts), bool),
    }
    return Batch(**fields)
