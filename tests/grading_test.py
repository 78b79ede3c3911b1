"""Reasons as metrics: shares of each attempt's verdicts."""

import json

import pytest

from score_jax import grading


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
