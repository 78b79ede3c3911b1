"""Rows that continue after a given first attempt, which another policy or rollout wrote.

    prompts_after(first, ...)        first attempts and the instruction as prompts -> PromptBatch
    later_attempts(sampled, ...)     attempts sampled after them, as attempts 2, 3, … of an Episode
    around_a_critique(first, rest)   first attempt, critique, rewrite -> an Episode of two attempts
    records(rows), of_records(...)   rows as values that JSON can hold, and back, without log-probs

The sampled ids are used as they are; nothing is decoded and encoded again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.structs import Episode, PromptBatch


def prompts_after(
    first: Episode,
    prompts: PromptBatch,
    *,
    instruction: Sequence[int],
    turn_end: Sequence[int],
    columns: int,
    pad_id: int,
    end_ids: Sequence[int] = (),
) -> PromptBatch:
    """The rows of `first`, one per problem, followed by the instruction for the next attempt.

    Where problems have their own, that is fed and not `instruction`, and the result has the rest.

    Args:
      first: one sample of each problem of `prompts`, in the same order; fetched.
      turn_end: closes the last attempt of a row if it was truncated.
      columns: of the result; every row must fit.
      end_ids: if given, turn_end also closes attempts that end in none of them: those that a stop
        sequence ended.
    """
    tokens_BT, length_B = np.asarray(first.tokens), np.asarray(first.length)
    open_B = np.asarray(first.truncated)[:, -1]
    if end_ids:
        last_B1 = length_B[:, None] - 1
        written_B1 = np.take_along_axis(np.asarray(first.attempt), last_B1, axis=1) > 0
        ended_B1 = np.isin(np.take_along_axis(tokens_BT, last_B1, axis=1), end_ids)
        open_B = ~(written_B1 & ended_B1)[:, 0]
    tokens_QP = np.full((len(tokens_BT), columns), pad_id, np.int32)
    length_Q = np.zeros(len(tokens_BT), np.int32)
    own = prompts.instructions
    rows = zip(tokens_BT, length_B, open_B, strict=True)
    for b, (row_T, length, open_) in enumerate(rows):
        asked = own.tokens[b, 0, : own.length[b, 0]] if own else instruction
        ids = [*row_T[:length], *(turn_end if open_ else ()), *asked]
        tokens_QP[b, : len(ids)] = ids
        length_Q[b] = len(ids)
    left = own.after(1) if own else None
    return PromptBatch(tokens_QP, length_Q, prompts.index, prompts.problems, left)


def later_attempts(sampled: Episode, first_truncated_B1: jax.Array) -> Episode:
    """Attempts 1, 2, … that were sampled after a given one, as attempts 2, 3, …"""
    return sampled.replace(
        attempt=sampled.attempt + (sampled.attempt > 0),
        truncated=jnp.concatenate([first_truncated_B1, sampled.truncated], axis=1),
    )


def around_a_critique(first: Episode, rest: Episode) -> Episode:
    """The first attempt and the rewrite after its critique; the critique counts as no attempt.

    rest: rows of a critique and a rewrite, sampled after `first`; with no fewer columns.
    """
    columns = rest.tokens.shape[1]
    pad = ((0, 0), (0, columns - first.attempt.shape[1]))
    rewrite_BT = jnp.where(rest.attempt == 2, 2, 0)
    return rest.replace(
        attempt=jnp.pad(first.attempt, pad) + rewrite_BT,
        logp=jnp.pad(first.logp, pad) + jnp.where(rewrite_BT > 0, rest.logp, 0.0),
        truncated=jnp.concatenate([first.truncated, rest.truncated[:, 1:]], axis=1),
    )


def records(rows: Episode) -> list[dict[str, Any]]:
    """The ids of each row and whose they are, as values that JSON can hold. rows: fetched."""
    return [
        {
            "tokens": rows.tokens[b, :length].tolist(),
            "attempt": rows.attempt[b, :length].tolist(),
            "truncated": rows.truncated[b].tolist(),
        }
        for b, length in enumerate(rows.length.tolist())
    ]


def of_records(found: Sequence[Mapping[str, Any]], pad_id: int) -> Episode:
    """The rows of `records`, as wide as the longest; their log-probs are 0."""
    length_B = np.array([len(row["tokens"]) for row in found], np.int32)
    tokens_BT = np.full((len(found), length_B.max()), pad_id, np.int32)
    attempt_BT = np.zeros_like(tokens_BT)
    for b, row in enumerate(found):
        tokens_BT[b, : length_B[b]] = row["tokens"]
        attempt_BT[b, : length_B[b]] = row["attempt"]
    truncated_BA = np.array([row["truncated"] for row in found], bool)
    logp_BT = np.zeros(tokens_BT.shape, np.float32)
    arrays: Any = (tokens_BT, attempt_BT, logp_BT, length_B, truncated_BA)  # of numpy
    return Episode(*arrays)
