"""Given first attempts as prompts."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from score_jax.rollout import contexts
from score_jax.structs import Episode, Instructions, PromptBatch

# Two problems; prompts 1 2 and 3, attempts 4 7 (ended) and 5 6 (truncated).
FIRST = Episode(
    tokens=jnp.array([[1, 2, 4, 7], [3, 5, 6, 0]]),
    attempt=jnp.array([[0, 0, 1, 1], [0, 1, 1, 0]]),
    logp=jnp.zeros((2, 4)),
    length=jnp.array([4, 3]),
    truncated=jnp.array([[False], [True]]),
)
PROMPTS = PromptBatch(np.array([[1, 2], [3, 0]], np.int32), np.array([2, 1]), np.array([9, 4]), ())


def test_the_instruction_follows_the_attempt_and_a_truncated_one_is_closed():
    found = contexts.prompts_after(
        FIRST, PROMPTS, instruction=[8, 8], turn_end=[7], columns=7, pad_id=0
    )
    assert found.tokens.tolist() == [[1, 2, 4, 7, 8, 8, 0], [3, 5, 6, 7, 8, 8, 0]]
    assert found.length.tolist() == [6, 6]
    assert found.index.tolist() == [9, 4]


def test_an_attempt_that_a_stop_sequence_ended_is_closed_where_turns_are():
    # Attempt 4 7 ends in no end token; the other is empty, after a prompt that ends in one.
    empty = FIRST.replace(
        tokens=jnp.array([[1, 2, 4, 7], [3, 9, 0, 0]]),
        attempt=jnp.array([[0, 0, 1, 1], [0, 0, 0, 0]]),
        length=jnp.array([4, 2]),
        truncated=jnp.array([[False], [False]]),
    )

    def after(end_ids):
        found = contexts.prompts_after(
            *(empty, PROMPTS),
            instruction=[8],
            turn_end=[6],
            columns=6,
            pad_id=0,
            end_ids=end_ids,
        )
        return [row[:n].tolist() for row, n in zip(found.tokens, found.length, strict=True)]

    assert after(()) == [[1, 2, 4, 7, 8], [3, 9, 8]]
    assert after((9,)) == [[1, 2, 4, 7, 6, 8], [3, 9, 6, 8]]
    assert after((7, 9)) == [[1, 2, 4, 7, 8], [3, 9, 6, 8]]


def test_what_is_sampled_after_a_first_attempt_is_the_second():
    later = contexts.later_attempts(FIRST, jnp.array([[True], [False]]))
    assert later.attempt.tolist() == [[0, 0, 2, 2], [0, 2, 2, 0]]
    assert later.truncated.tolist() == [[True, False], [False, True]]


def test_each_problem_s_own_instruction_follows_and_the_rest_is_left_for_later():
    own = Instructions(
        np.array([[[8, 8, 0], [9, 0, 0]], [[9, 0, 0], [8, 9, 8]]]), np.array([[2, 1], [1, 3]])
    )
    found = contexts.prompts_after(
        FIRST,
        dataclasses.replace(PROMPTS, instructions=own),
        instruction=[5],
        turn_end=[7],
        columns=7,
        pad_id=0,
    )
    assert found.tokens.tolist() == [[1, 2, 4, 7, 8, 8, 0], [3, 5, 6, 7, 9, 0, 0]]
    assert found.length.tolist() == [6, 5]
    assert found.instructions.tokens.tolist() == [[[9, 0, 0]], [[8, 9, 8]]]
    assert found.instructions.after(1).length.tolist() == [[1], [3]]  # the last serves all further
