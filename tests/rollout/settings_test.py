"""Instructions that differ between attempts."""

import dataclasses

import pytest

from tests.rollout.episode_test import PLAIN

TWO = dataclasses.replace(PLAIN, attempts=4, instructions=((1,), (2, 3)))


def test_one_instruction_serves_all_attempts_and_the_last_of_several_all_further_ones():
    assert [PLAIN.before(a) for a in (2, 3, 9)] == [PLAIN.instruction] * 3
    assert [TWO.before(a) for a in (2, 3, 4)] == [(1,), (2, 3), (2, 3)]


def test_a_row_has_room_for_every_instruction_and_turn_end():
    ends = 3 * len(PLAIN.turn_end)
    assert TWO.row_tokens(6) == 6 + 4 * PLAIN.max_attempt_tokens + 1 + 2 + 2 + ends


@pytest.mark.parametrize("given, left", [(1, [(2, 3), (2, 3)]), (2, [(2, 3)])])
def test_after_a_given_attempt_the_next_instructions_follow(given, left):
    after = TWO.after_given(given)
    assert [after.before(a) for a in range(2, after.attempts + 1)] == left
    assert PLAIN.after_given(1).before(2) == PLAIN.instruction
