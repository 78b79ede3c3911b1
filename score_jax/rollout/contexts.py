"""Attempts that are given: rows that go on behind a first attempt which somebody else wrote.

    behind(first, prompts, ...)      first attempts and the instruction as prompts -> PromptBatch
    later_attempts(sampled, cut)     what was sampled behind them, as attempts 2, 3, … of an Episode

Ids are passed through as they were sampled; nothing is decoded and encoded again.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.structs import Episode, PromptBatch


def behind(
    first: Episode,
    prompts: PromptBatch,
    *,
    instruction: Sequence[int],
    turn_end: Sequence[int],
    columns: int,
    pad_id: int,
) -> PromptBatch:
    """The rows of `first`, one per problem, with the instruction for the next attempt behind them.

    Args:
      first: one sample of each problem of `prompts`, in the same order; fetched.
      turn_end: closes an attempt that was cut off; its last flag in `truncated` counts.
      columns: of the result; every row must fit.
    """
    tokens_BT, length_B = np.asarray(first.tokens), np.asarray(first.length)
    cut_B = np.asarray(first.truncated)[:, -1]
    tokens_QP = np.full((len(tokens_BT), columns), pad_id, np.int32)
    length_Q = np.zeros(len(tokens_BT), np.int32)
    for b, (row_T, length, cut) in enumerate(zip(tokens_BT, length_B, cut_B, strict=True)):
        ids = [*row_T[:length], *(turn_end if cut else ()), *instruction]
        tokens_QP[b, : len(ids)] = ids
        length_Q[b] = len(ids)
    return PromptBatch(tokens_QP, length_Q, prompts.index, prompts.problems)


def later_attempts(sampled: Episode, first_truncated_B1: jax.Array) -> Episode:
    """Attempts 1, 2, … that were sampled behind a given one, as attempts 2, 3, …"""
    return sampled.replace(
        attempt=sampled.attempt + (sampled.attempt > 0),
        truncated=jnp.concatenate([first_truncated_B1, sampled.truncated], axis=1),
    )
