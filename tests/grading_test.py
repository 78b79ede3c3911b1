"""Rewards of rows: truncated attempts, functions that fail or go wrong, shares of reasons."""

import json
import types

import numpy as np
import pytest

from score_jax import grading
from score_jax.config.settings import FunctionSettings, RewardSettings
from score_jax.grading import OwnRows
from score_jax.problem import InputError, Problem
from score_jax.rewards.workers import pool
from score_jax.structs import Episode

# Attempt 1 has two tokens and is cut, attempt 2 one token.
ATTEMPT_T = [0, 1, 1, 0, 2]


@pytest.fixture
def function(tmp_path):
    """Writes a file with a reward function; its name."""

    def write(body: str) -> str:
        (tmp_path / "mine.py").write_text(f"import os\ndef reward({body}\n")
        return f"{tmp_path / 'mine.py'}:reward"

    yield write
    pool.close()


def own_rows(rows: int, *, cut: bool = True) -> OwnRows:
    episodes = Episode(
        tokens=np.ones((rows, 5), int),
        attempt=np.array([ATTEMPT_T] * rows).reshape(rows, 5),
        logp=np.zeros((rows, 5)),
        length=np.full(rows, 5),
        truncated=np.array([[cut, False]] * rows, bool).reshape(rows, 2),
    )
    problems = [Problem(f"p/{n}", "6+1", "7", grader="first_character") for n in range(rows)]
    return OwnRows(np.arange(rows), episodes, problems, [["7", str(n)] for n in range(rows)])


def grade(rewards: RewardSettings, own: OwnRows, **where) -> grading.Grades:
    settings = types.SimpleNamespace(rewards=rewards)
    return grading.grade(types.SimpleNamespace(settings=settings, marks=None), own, **where)


def test_a_truncated_attempt_earns_what_the_settings_say_and_is_not_solved():
    for reward in (0.0, -1.5):
        found = grade(RewardSettings(truncated=reward), own_rows(8))
        np.testing.assert_array_equal(found.reward_NA[:, 0], [reward] * 8)
        np.testing.assert_array_equal(found.reward_NA[:, 1], [0] * 7 + [1])
        np.testing.assert_array_equal(found.solved_NA, [[0, 0]] * 7 + [[0, 1]])
        assert found.reasons[7] == ["truncated", "equal"]
        assert not found.of_terms  # the reward says it all


def test_a_function_is_told_where_it_is_and_how_long_attempts_are(function):
    name = function(
        "problem, texts, gold, *, tokens, truncated, stage, step):\n"
        "    assert (tokens, truncated, stage, step) == ([2, 1], [True, False], 'stage2', 9)\n"
        "    return [0.25, 0.75]"
    )
    found = grade(RewardSettings(function=name), own_rows(1), stage="stage2", step=9)
    np.testing.assert_array_equal(found.reward_NA, [[0.0, 0.75]])
    np.testing.assert_array_equal(found.of_terms["function"], [[0.25, 0.75]])


def test_all_settings_reach_the_terms(function):
    name = function("problem, texts, gold):\n    return [0.5] * len(texts)")
    terms = {"style": FunctionSettings(name, weight=2.0), "right": FunctionSettings("builtin")}
    found = grade(RewardSettings(functions=terms), own_rows(8, cut=False))
    np.testing.assert_array_equal(found.reward_NA, [[2, 1]] * 7 + [[2, 2]])
    np.testing.assert_array_equal(found.solved_NA, [[1, 0]] * 7 + [[1, 1]])
    rewards = RewardSettings(
        function=name, solved_at=0.5, failed=-3.0, function_timeout_sec=7.0, workers=3, retries=2,
        remember=9, environment=("KEY",), function_memory_gib=0,
    )  # fmt: skip
    made = grading.terms_of(rewards)
    limits = made.limits
    assert (made.solver, made.solved_at, made.failed) == ("function", 0.5, -3.0)
    assert (limits.timeout_sec, limits.workers, limits.retries) == (7.0, 3, 2)
    assert (limits.remember, limits.environment, limits.memory_gib) == (9, ("KEY",), 0)


def test_a_failed_call_costs_its_row_and_more_than_a_share_stop_the_run(function):
    name = function(
        "problem, texts, gold):\n    return os._exit(1) if texts[1] == '2' else [0.5, 0.5]"
    )
    rewards = RewardSettings(function=name, failed=-1.0, failed_share=0.25)
    found = grade(rewards, own_rows(4, cut=False))
    np.testing.assert_array_equal(found.reward_NA[:, 0], [0.5, 0.5, -1, 0.5])
    assert found.failed == ["", "", "function: crash", ""]
    with pytest.raises(InputError, match=r"1 of 3 rows .stage1, step 5.*function: crash 1 times"):
        grade(rewards, own_rows(3), stage="stage1", step=5)


def test_a_mistake_of_a_function_is_passed_on(function):
    name = function("problem, texts, gold):\n    return [1 / (texts[1] != '2'), 0]")
    with pytest.raises(InputError, match=r"(?s)ZeroDivisionError.*problem p/2"):
        grade(RewardSettings(function=name), own_rows(4))


def test_a_process_without_rows_has_the_same_terms(function):
    name = function("problem, texts, gold):\n    return [0.5] * len(texts)")
    found = grade(RewardSettings(function=name), own_rows(0))
    assert found.reward_NA.shape == found.of_terms["function"].shape == (0, 2)


def test_shares_of_reasons_are_of_all_rows_and_the_expected_ones_are_never_missing():
    found = grading.reason_shares([["equal", "truncated"], ["unequal", "timeout"]] * 2)
    assert list(found) == ["attempt1", "attempt2"]
    zero = dict.fromkeys(grading.EXPECTED, 0.0)
    assert found["attempt1"] == {**zero, "equal": 0.5, "unequal": 0.5}
    assert found["attempt2"] == {**zero, "truncated": 0.5, "timeout": 0.5}
    json.dumps(found, allow_nan=False)


def test_reasons_that_a_function_makes_up_become_names_and_rare_ones_one_name():
    odd = grading.reason_shares([["too rude / \ud800\n"], [""], ["x" * 1000], ["é.1-a"]])
    assert set(odd["attempt1"]) - set(grading.EXPECTED) == {"too_rude_", "none", "x" * 40, "é.1-a"}
    many = [["common"]] * 50 + [["timeout"]] + [[f"judge says {i:03}"] for i in range(49)]
    shares = grading.reason_shares(many)["attempt1"]
    assert shares["common"] == 0.5 and shares["timeout"] == 0.01
    assert len(shares) < 40 and shares["other"] == pytest.approx(0.20)
    assert sum(shares.values()) == pytest.approx(1.0)


def opened(function: str = ""):
    """As far as grading reads an experiment."""
    limits = RewardSettings(function=function)
    return types.SimpleNamespace(marks=None, settings=types.SimpleNamespace(rewards=limits))


def graded_rows(*rows: tuple[str, str, list[str]], cut: int = -1) -> grading.OwnRows:
    """Rows of (grader, gold, texts); the first attempt of row `cut` is truncated."""
    truncated_NA = np.zeros((len(rows), len(rows[0][2])), bool)
    if cut >= 0:
        truncated_NA[cut, 0] = True
    problems = [Problem(f"p{i}", "?", gold, grader) for i, (grader, gold, _) in enumerate(rows)]
    texts = [texts for _, _, texts in rows]
    attempt_BT = np.ones((len(rows), 3), int)
    episodes = types.SimpleNamespace(truncated=truncated_NA, attempt=attempt_BT)
    return grading.OwnRows(np.arange(len(rows)), episodes, problems, texts)


def test_what_is_cut_off_after_its_answer_is_not_solved_and_counts_leniently():
    right, wrong = "So \\boxed{12}. Let me check", "So \\boxed{13}. Let me check"
    own = graded_rows(("answer", "12", [right, right]), ("answer", "12", [wrong, right]), cut=0)
    grades = grading.grade(opened(), own)
    assert grades.solved_NA.tolist() == [[False, True], [False, True]]
    assert grades.reasons[0][0] == "truncated"
    lenient_NA = grading.lenient(opened(), own, grades.solved_NA)
    assert lenient_NA.tolist() == [[True, True], [False, True]]
    assert grades.solved_NA.tolist() == [[False, True], [False, True]]  # as it was


def test_only_stated_answers_have_a_lenient_form():
    own = graded_rows(("first_character", "1", ["1", "1"]), cut=0)
    solved_NA = grading.grade(opened(), own).solved_NA
    assert grading.lenient(opened(), own, solved_NA).tolist() == [[False, True]]
    own = graded_rows(("answer", "12", ["\\boxed{12}"]))
    zero_NA = np.zeros((1, 1), bool)
    assert grading.lenient(opened("mine:judge"), own, zero_NA).tolist() == [[False]]
    assert grading.lenient(opened(), own, zero_NA).tolist() == [[True]]
