"""Reasons as metrics: shares of each attempt's verdicts."""

import json
import types

import numpy as np
import pytest

from score_jax import grading
from score_jax.problem import Problem


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
    limits = types.SimpleNamespace(timeout_sec=3.0, program_timeout_sec=5.0, function=function)
    return types.SimpleNamespace(marks=None, settings=types.SimpleNamespace(rewards=limits))


def own_rows(*rows: tuple[str, str, list[str]], cut: int = -1) -> grading.OwnRows:
    """Rows of (grader, gold, texts); the first attempt of row `cut` is truncated."""
    truncated_NA = np.zeros((len(rows), len(rows[0][2])), bool)
    if cut >= 0:
        truncated_NA[cut, 0] = True
    problems = [Problem(f"p{i}", "?", gold, grader) for i, (grader, gold, _) in enumerate(rows)]
    texts = [texts for _, _, texts in rows]
    return grading.OwnRows(
        np.arange(len(rows)), types.SimpleNamespace(truncated=truncated_NA), problems, texts
    )


def test_what_is_cut_off_after_its_answer_is_not_solved_and_counts_leniently():
    right, wrong = "So \\boxed{12}. Let me check", "So \\boxed{13}. Let me check"
    own = own_rows(("answer", "12", [right, right]), ("answer", "12", [wrong, right]), cut=0)
    grades = grading.grade(opened(), own)
    assert grades.solved_NA.tolist() == [[False, True], [False, True]]
    assert grades.reasons[0][0] == "truncated"
    lenient_NA = grading.lenient(opened(), own, grades.solved_NA)
    assert lenient_NA.tolist() == [[True, True], [False, True]]
    assert grades.solved_NA.tolist() == [[False, True], [False, True]]  # as it was


def test_only_stated_answers_have_a_lenient_form():
    own = own_rows(("first_character", "1", ["1", "1"]), cut=0)
    solved_NA = grading.grade(opened(), own).solved_NA
    assert grading.lenient(opened(), own, solved_NA).tolist() == [[False, True]]
    own = own_rows(("answer", "12", ["\\boxed{12}"]))
    zero_NA = np.zeros((1, 1), bool)
    assert grading.lenient(opened("mine:judge"), own, zero_NA).tolist() == [[False]]
    assert grading.lenient(opened(), own, zero_NA).tolist() == [[True]]
