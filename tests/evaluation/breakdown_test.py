"""Conditional rates, groups, transitions and stopping, by hand."""

import json

import numpy as np
import pytest

from score_jax.evaluation import breakdown

REWARD_NA = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
TEXTS = [["a", "b", "b "], ["a", "a", "b"], ["a", "b", "c"], ["a", "a", "a"], ["a", "b", "a"]]
TOKENS_NA = np.array([[1, 2, 4]] * 5)
TAGS = [{"level": "1"}, {"level": "1"}, {"level": "2"}, {"level": "2"}, {}]


@pytest.fixture(scope="module")
def found():
    return breakdown.details(REWARD_NA, TEXTS, TOKENS_NA, TAGS)


def test_rates_are_of_the_problems_that_it_can_happen_to(found):
    assert (found["fix_rate"]["share"], found["fix_rate"]["n"]) == (1 / 3, 3)
    assert (found["break_rate"]["share"], found["break_rate"]["n"]) == (1 / 2, 2)
    low, high = found["fix_rate"]["interval"]
    assert low < 1 / 3 < high
    none = breakdown.details(np.ones((2, 2)), [["a", "a"]] * 2, np.ones((2, 2)), [{}, {}])
    assert none["fix_rate"] == {"share": None, "n": 0, "interval": None}


def test_every_pair_of_neighbouring_attempts_has_its_table(found):
    first, second = found["transitions"]
    assert (first["from"], first["to"], second["from"], second["to"]) == (1, 2, 2, 3)
    counts = ("both_right", "wrong_right", "right_wrong", "both_wrong")
    assert [first[c] for c in counts] == [1, 1, 1, 2]
    assert [second[c] for c in counts] == [2, 1, 0, 2]
    assert second["delta"] == 1 / 5


def test_groups_have_their_own_accuracies(found):
    assert found["by"]["level"]["1"] == {
        "n": 2,
        "accuracy_attempt1": 0.0,
        "accuracy_attempt2": 0.5,
        "accuracy_attempt3": 1.0,
    }
    assert set(found["by"]["level"]) == {"1", "2", "?"}


def test_a_tag_that_names_each_problem_is_no_group():
    tags = [{"id": str(i)} for i in range(5)]
    assert breakdown.details(REWARD_NA, TEXTS, TOKENS_NA, tags)["by"] == {}


def test_one_stops_at_the_first_repetition_and_pays_for_it(found):
    # Attempts 3, 2, 3 (never stable), 2, 3: of these, right, wrong, wrong, right, wrong.
    stable = found["stop_when_stable"]
    assert stable["accuracy"] == 2 / 5
    assert stable["attempts"] == (3 + 2 + 3 + 2 + 3) / 5
    assert stable["tokens"] == (7 + 3 + 7 + 3 + 7) / 5
    assert stable["tokens_of_all_attempts"] == 7.0


def test_details_are_plain_numbers(found):
    json.dumps(found, allow_nan=False)


def test_verdicts_are_counted_over_all_later_attempts():
    true_NA = np.array([[0, 1, 0], [0, 0, 1]])
    found = breakdown.verdicts(true_NA, [[True, None], [False, True]])
    assert found == {"verdict_accuracy": 0.5, "kept": 0.5, "without_verdict": 0.25}
