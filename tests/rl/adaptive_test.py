"""The controller of a KL coefficient."""

import pytest

from score_jax.rl.adaptive import CLIP, GAIN, LEAST, MOST, next_coefficient


@pytest.mark.parametrize("start", [1e-3, 0.1, 10.0])
def test_the_kl_converges_to_its_target_from_either_side(start):
    coefficient = start
    for _ in range(2000):
        kl = 0.5 / coefficient  # a policy with more KL the smaller the coefficient
        coefficient = next_coefficient(coefficient, kl, 2.0)
    assert kl == pytest.approx(2.0, rel=1e-3)


def test_one_noisy_batch_or_a_negative_estimate_changes_little():
    for kl in (-5.0, 0.0, 1e6):
        change = next_coefficient(0.1, kl, 1.0) / 0.1
        assert abs(change - 1.0) <= 1.02 * GAIN * CLIP


def test_a_coefficient_stays_within_its_bounds():
    low = high = 0.1
    for _ in range(10_000):
        low, high = next_coefficient(low, 0.0, 1.0), next_coefficient(high, 1e9, 1.0)
    assert (low, high) == (LEAST, MOST)
