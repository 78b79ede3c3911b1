"""Verdicts: the answer after each attempt, and which verdicts are true."""

import numpy as np
import pytest

from score_jax.rewards import selective
from score_jax.rewards.selective import Marks

SUMS = Marks("=", "+")
WORDS = Marks("Verdict: right.", "Verdict: wrong.")


@pytest.mark.parametrize(
    ("marks", "texts", "answers"),
    [
        (SUMS, ["1:17", "+8:17"], ["1:17", "8:17"]),
        (SUMS, ["0:0", "="], ["0:0", "0:0"]),
        (SUMS, ["0:0", "0:0"], ["0:0", ""]),  # no verdict, no answer
        (SUMS, ["0:0", ""], ["0:0", ""]),
        (SUMS, ["1:1", "+2:2", "="], ["1:1", "2:2", "2:2"]),
        (WORDS, ["it is 3", "Verdict: right."], ["it is 3", "it is 3"]),
        (WORDS, ["it is 3", "\n Verdict: wrong. It is 4"], ["it is 3", " It is 4"]),
        (WORDS, ["it is 3", "It is 4. Verdict: wrong."], ["it is 3", ""]),
    ],
)
def test_the_answer_after_each_attempt(marks, texts, answers):
    assert selective.answers(texts, marks) == answers


def test_a_verdict_is_true_if_it_says_what_the_grade_says():
    texts = [["a", "="], ["a", "="], ["a", "+b"], ["a", "+b"], ["a", "b"]]
    reward_BA = np.array([[1, 1], [0, 0], [1, 0], [0, 1], [0, 0]])
    true_BA = selective.true_verdicts(texts, reward_BA, SUMS)
    assert true_BA[:, 0].tolist() == [0] * 5
    assert true_BA[:, 1].tolist() == [1, 0, 0, 1, 0]


def test_keeping_a_truncated_attempt_keeps_it_truncated():
    texts = [["a", "="], ["a", "+b"], ["a", "="]]
    truncated_BA = np.array([[True, False], [True, False], [False, False]])
    assert selective.truncated(texts, truncated_BA, SUMS)[:, 1].tolist() == [True, False, False]
