import json
import math

import numpy as np
import pytest

from score_jax.evaluation import metrics
from score_jax.problem import InputError


def _evaluate(reward, changed=None, truncated=None, **kwargs):
    reward_NA = np.asarray(reward)
    if changed is None:
        changed = np.zeros(len(reward_NA), bool)
    if truncated is None:
        truncated = np.zeros(reward_NA.shape, bool)
    return metrics.evaluation_metrics(reward_NA, changed, truncated, **kwargs)


def test_shares_are_counts_over_all_problems():
    reward = [[0, 1], [0, 1], [0, 0], [1, 1], [1, 0]]
    found = _evaluate(
        reward,
        changed=np.array([1, 1, 1, 0, 1], bool),
        truncated=np.array([[1, 0], [0, 0], [0, 0], [1, 1], [0, 0]], bool),
    )
    assert found["n"] == 5
    assert found["accuracy_attempt1"] == 2 / 5
    assert found["accuracy_attempt2"] == 3 / 5
    assert found["incorrect_to_correct"] == 2 / 5
    assert found["correct_to_incorrect"] == 1 / 5
    assert found["changed"] == 4 / 5
    assert found["truncated_attempt1"] == 2 / 5
    assert found["truncated_attempt2"] == 1 / 5
    assert found["mcnemar_p"] == 1.0  # two gains, one loss: 2 * (1 + 3) / 8


def test_metrics_have_exactly_the_promised_keys():
    found = _evaluate([[0, 1], [1, 0]])
    shares = {
        "accuracy_attempt1",
        "accuracy_attempt2",
        "delta",
        "incorrect_to_correct",
        "correct_to_incorrect",
        "changed",
        "truncated_attempt1",
        "truncated_attempt2",
    }
    assert set(found) == shares | {"n", "interval", "mcnemar_p"}
    assert set(found["interval"]) == shares
    json.dumps(found, allow_nan=False)  # plain Python numbers only


def test_delta_is_gains_minus_losses_to_the_last_bit():
    rng = np.random.default_rng(3)
    for n in range(1, 300):
        found = _evaluate(rng.integers(0, 2, size=(n, 2)))
        assert found["delta"] == found["incorrect_to_correct"] - found["correct_to_incorrect"]
        gap = found["accuracy_attempt2"] - found["accuracy_attempt1"]
        assert found["delta"] == pytest.approx(gap, abs=1e-15)


def test_rewards_of_any_size_have_their_mean_beside_what_is_solved():
    solved = [[0, 1], [0, 1], [0, 0], [1, 1]]
    found = _evaluate(solved, reward_NA=np.array([[-1.0, 1], [0.5, 1], [0.5, 0], [2, 1]]))
    assert (found["accuracy_attempt1"], found["reward_attempt1"]) == (1 / 4, 0.5)
    half = 1.959964 * np.std([-1.0, 0.5, 0.5, 2]) / 2
    assert found["interval"]["reward_attempt1"] == pytest.approx([0.5 - half, 0.5 + half])
    assert found["reward_attempt2"] == 3 / 4
    json.dumps(found, allow_nan=False)
    assert _evaluate(solved, reward_NA=np.array(solved, np.float32)) == _evaluate(solved)


def test_lenient_accuracies_stand_beside_the_strict_ones_with_their_intervals():
    lenient_NA = np.array([[1, 1], [1, 1], [0, 0]], bool)
    found = _evaluate([[0, 1], [1, 1], [0, 0]], lenient_NA=lenient_NA)
    assert (found["accuracy_attempt1"], found["lenient_attempt1"]) == (1 / 3, 2 / 3)
    assert found["lenient_attempt2"] == 2 / 3
    assert found["interval"]["lenient_attempt1"] == metrics.wilson_interval(2, 3)


def test_what_attempt_2_repairs_is_the_format_or_the_answer_of_attempt_1():
    solved = [[0, 1]] * 5 + [[0, 0], [1, 1], [1, 0]]
    reasons = [["unequal", "equal"], ["truncated", "equal"], ["unparseable", "equal"]]
    reasons += [["no_answer", "equal"], ["timeout", "equal"], ["truncated", "unequal"]]
    reasons += [["equal", "equal"], ["equal", "refused"]]
    truncated = np.array([[why == "truncated" for why in row] for row in reasons])
    found = _evaluate(solved, truncated=truncated, reasons=reasons)
    assert found["incorrect_to_correct"] == 5 / 8
    assert (found["format_repaired"], found["answer_repaired"]) == (3 / 8, 2 / 8)
    assert found["interval"]["format_repaired"] == metrics.wilson_interval(3, 8)
    assert found["interval"]["answer_repaired"] == metrics.wilson_interval(2, 8)
    assert (found["unreadable_attempt1"], found["unreadable_attempt2"]) == (2 / 8, 1 / 8)
    assert found["reasons"]["attempt1"]["truncated"] == 2 / 8
    assert found["reasons"]["attempt2"]["equal"] == 6 / 8
    json.dumps(found, allow_nan=False)


def test_the_parts_of_delta_add_up_to_the_last_bit():
    rng = np.random.default_rng(4)
    for n in range(1, 300):
        reasons = np.where(rng.random((n, 2)) < 0.5, "no_answer", "unequal").tolist()
        found = _evaluate(rng.integers(0, 2, size=(n, 2)), reasons=reasons)
        parts = found["format_repaired"] + found["answer_repaired"]
        assert found["incorrect_to_correct"] == parts
        assert found["delta"] == parts - found["correct_to_incorrect"]
        assert found["incorrect_to_correct"] * n == pytest.approx(round(parts * n), abs=1e-9)


def test_one_attempt_has_no_second_attempt_keys():
    found = metrics.evaluation_metrics(np.array([[1], [0]]), None, np.zeros((2, 1), bool))
    assert set(found) == {"n", "accuracy_attempt1", "truncated_attempt1", "interval"}
    assert found["accuracy_attempt1"] == 0.5


def test_three_attempts_add_the_last_difference():
    found = _evaluate([[0, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]])
    assert found["accuracy_attempt3"] == 3 / 4
    assert found["delta"] == 1 / 4
    assert found["delta_last"] == 3 / 4 - 1 / 4
    assert {"accuracy_attempt3", "truncated_attempt3", "delta_last"} <= set(found["interval"])


def test_wilson_interval_agrees_with_published_values():
    # Newcombe 1998, table I, method 3 (81 of 263, 15 of 148, 0 of 20, 1 of 29).
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert metrics.wilson_interval(hits, n) == pytest.approx([low, high], abs=5e-5)
    assert metrics.wilson_interval(20, 20)[1] == 1.0


def test_mcnemar_p_is_the_exact_binomial_tail():
    # Worked by hand: 1 loss among 10 flips is 2 * (1 + 10) / 1024.
    assert metrics.mcnemar_p(9, 1) == 22 / 1024
    assert metrics.mcnemar_p(1, 9) == 22 / 1024
    assert metrics.mcnemar_p(0, 0) == 1.0
    assert metrics.mcnemar_p(5, 5) == 1.0
    slow = 2 * sum(math.comb(60, k) for k in range(21)) / 2**60
    assert metrics.mcnemar_p(40, 20) == slow
    assert metrics.mcnemar_p(2000, 3) == pytest.approx(0.0, abs=1e-300)  # and no overflow


def test_bootstrap_interval_agrees_with_resampling_the_problems():
    gained, lost, n = 30, 10, 100
    difference_N = np.array([1] * gained + [-1] * lost + [0] * (n - gained - lost))
    rng = np.random.default_rng(7)
    slow = [rng.choice(difference_N, n).mean() for _ in range(10_000)]
    expected = np.quantile(slow, [0.025, 0.975])
    found = metrics.paired_bootstrap_interval(gained, lost, n)
    assert found == pytest.approx(expected, abs=0.0101)  # the estimate moves in steps of 1 / n


def test_the_same_rewards_give_the_same_intervals():
    reward = np.random.default_rng(0).integers(0, 2, size=(9973, 2))
    assert _evaluate(reward) == _evaluate(reward)
    other = _evaluate(reward, seed=1)
    assert _evaluate(reward)["interval"]["delta"] != other["interval"]["delta"]


def test_an_evaluation_without_problems_says_what_to_set():
    with pytest.raises(InputError, match=r"evaluation\.problems"):
        _evaluate(np.zeros((0, 2)))


def test_rewards_that_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        _evaluate([[0.5, 1.0]])
    with pytest.raises(ValueError, match="truncated_NA"):
        _evaluate([[0, 1]], truncated=np.zeros((1, 1), bool))
    with pytest.raises(ValueError, match="changed_N"):
        _evaluate([[0, 1]], changed=np.zeros(3, bool))


def test_edit_ratios_are_averaged_and_counted_in_bins_that_end_at_one():
    found = _evaluate([[0, 1]] * 4, edit_ratio_N=np.array([0.0, 0.04, 0.5, 1.0]))
    assert found["edit_ratio"] == pytest.approx(1.54 / 4)
    counts = found["edit_ratio_histogram"]
    assert len(counts) == metrics.EDIT_BINS
    assert (counts[0], counts[10], counts[-1], sum(counts)) == (2, 1, 1, 4)
