"""A batch of attempts: shapes, reasons, repeated answers, names of graders."""

import numpy as np
import pytest

from score_jax.problem import InputError, Problem
from score_jax.rewards import grader
from score_jax.rewards.grader import GRADERS, find_grader, grade
from score_jax.rewards.workers import deadlines


def problem(gold: str, name: str = "answer") -> Problem:
    return Problem(id=f"test/{gold}", prompt="?", gold=gold, grader=name)


def test_each_attempt_has_its_reward_and_reason():
    reward_BA, solved_BA, reasons_BA = grade(
        [problem("42"), problem(r"\sqrt{8}"), problem("7", "first_character")],
        [
            [r"\boxed{41}", r"\boxed{42}"],
            [r"\boxed{2\sqrt{2}}", "I do not know"],
            ["7+", "x7"],
        ],
    )
    assert reward_BA.dtype == np.float32
    np.testing.assert_array_equal(reward_BA, [[0, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(solved_BA, reward_BA == 1)
    assert reasons_BA == [["unequal", "equal"], ["equal", "no_answer"], ["equal", "no_answer"]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7", "equal"),
        ("78", "equal"),
        ("8", "unequal"),
        ("", "no_answer"),
        (" 7", "no_answer"),
        ("a7", "no_answer"),
        ("٧", "no_answer"),
        ("\ud800", "no_answer"),
    ],
)
def test_first_character_is_the_answer(text, reason):
    assert GRADERS["first_character"](text, "7").reason == reason


def test_same_hard_question_is_asked_once(monkeypatch):
    asked: list[tuple[str, str]] = []

    def decide(pairs, deadline_sec):
        asked.extend(pairs)
        return ["equal"] * len(pairs)

    monkeypatch.setattr(deadlines, "decide", decide)
    texts = [[rf"a \boxed{{\frac{{{n % 2}+z}}{{\sqrt{{17}}}}}}"] for n in range(8)]
    reward_BA, *_ = grade([problem(r"\frac{z}{\sqrt{17}}+0")] * 8, texts)
    assert len(asked) == 2
    assert reward_BA.sum() == 8
    grade([problem(r"\frac{z}{\sqrt{17}}+0")] * 8, texts)
    assert len(asked) == 2


def test_no_rows_are_an_empty_batch():
    reward_BA, _, reasons_BA = grade([], [])
    assert reward_BA.shape == (0, 0)
    assert reasons_BA == []


def test_unknown_grader_names_the_nearest():
    with pytest.raises(InputError, match=r"'anser'.*mean 'answer'.*answer, first_character"):
        grade([problem("1", "anser")], [["1", "1"]])
    assert find_grader("answer") is grader.grade_answer


def test_the_first_problem_of_an_unknown_grader_is_named_before_a_run():
    kinds = ("answer", "anser", "anser")
    rows = [Problem(str(n), "?", "1", kind, where=f"F, line {n}") for n, kind in enumerate(kinds)]
    with pytest.raises(InputError, match=r"^F, line 1: there is no grader 'anser'"):
        grader.prepare(rows, attempts=2)


def test_rows_of_unequal_attempts_are_an_error():
    with pytest.raises(ValueError, match="equally many attempts"):
        grade([problem("1"), problem("1")], [["1"], ["1", "1"]])
    with pytest.raises(ValueError, match="each row needs one problem"):
        grade([problem("1")], [])
