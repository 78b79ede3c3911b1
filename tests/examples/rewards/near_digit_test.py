"""The example of a reward between 0 and 1."""

import pytest

from examples.rewards.near_digit import near
from score_jax.problem import Problem


def test_the_nearer_the_more():
    found = near(Problem("p", "3+4=", "7"), ["7+", "6", "0", "x7", ""], "7")
    assert [reward for reward, _ in found] == pytest.approx([1, 8 / 9, 2 / 9, 0, 0])
    assert [reason for _, reason in found][1:4] == ["off_by_1", "off_by_7", "no_answer"]
