"""Votes, averages and pass@k, against enumeration and against known truth."""

import itertools

import numpy as np
import pytest

from score_jax.evaluation import sampled


@pytest.mark.parametrize(
    ("answers", "elected"),
    [
        (["a", "b", "b"], 1),
        (["a", "b"], 0),  # a tie: seen first
        (["b", "a", "a", "b"], 0),
        ([None, None, "a"], 2),  # who states nothing does not vote
        ([None, "b", "a", None, "a"], 2),
        ([None, None], 0),
        (["a"], 0),
    ],
)
def test_the_most_stated_answer_is_elected_and_ties_go_to_the_first_seen(answers, elected):
    assert sampled.majority(answers) == elected


@pytest.mark.parametrize("right", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_draws_of_k_with_a_right_sample(right, k):
    rewards = [1] * right + [0] * (5 - right)
    draws = [any(draw) for draw in itertools.combinations(rewards, k)]
    assert sampled.pass_at_k(right, 5, k) == pytest.approx(np.mean(draws))


def test_pass_at_k_is_unbiased():
    draw = np.random.default_rng(0)
    estimates = [
        sampled.pass_at_k(int(right), 8, 3) for right in draw.binomial(8, 0.3, size=20_000)
    ]
    assert np.mean(estimates) == pytest.approx(1 - 0.7**3, abs=0.01)


def test_averages_by_hand():
    reward_NGA = np.array([[[0, 1], [1, 1]], [[0, 0], [0, 1]]], float)
    found = sampled.sampled_metrics(reward_NGA)
    assert (found["n"], found["samples"]) == (2, 2)
    assert found["accuracy_attempt1"] == 0.25 and found["accuracy_attempt2"] == 0.75
    assert found["delta"] == 0.5
    assert found["pass_attempt1"] == {"1": 0.25, "2": 0.5}
    assert found["pass_attempt2"] == {"1": 0.75, "2": 1.0}
    low, high = found["interval"]["delta"]
    assert low <= 0.5 <= high


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say():
    draw = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        p_N = draw.beta(2, 3, size=150)  # problems differ; the truth is the mean 0.4
        low, high = sampled.bootstrap_interval(draw.binomial(8, p_N) / 8, seed=trial)
        covered += low <= 0.4 <= high
    assert 0.91 <= covered / 200 <= 0.99
