"""Rewards of rows: what truncated attempts earn, and reward functions that fail or go wrong."""

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
