import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.rl import advantages

SHAPED_QGA = jnp.array(np.random.default_rng(0).normal(size=(3, 4, 2)), jnp.float32)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_leave_one_out_is_a_sample_less_the_mean_of_its_problems_others(transform):
    found_QGA = np.asarray(transform(advantages.leave_one_out)(SHAPED_QGA))
    shaped_QGA = np.asarray(SHAPED_QGA)
    for q, g, a in np.ndindex(shaped_QGA.shape):
        others = [shaped_QGA[q, j, a] for j in range(4) if j != g]
        expected = shaped_QGA[q, g, a] - np.mean(others)
        np.testing.assert_allclose(found_QGA[q, g, a], expected, atol=1e-6)


def test_leave_one_out_sums_to_0_per_problem_and_attempt():
    sums_QA = np.sum(advantages.leave_one_out(SHAPED_QGA), axis=1)
    np.testing.assert_allclose(sums_QA, 0.0, atol=1e-6)


def test_leave_one_out_by_hand():
    shaped_QGA = jnp.array([[[1.0], [0.0], [0.0], [0.0]]])
    found = advantages.leave_one_out(shaped_QGA)[0, :, 0]
    np.testing.assert_allclose(found, [1.0, -1 / 3, -1 / 3, -1 / 3], rtol=1e-6)


def test_samples_that_did_equally_well_teach_nothing():
    np.testing.assert_array_equal(advantages.leave_one_out(jnp.ones((2, 4, 2))), 0.0)


def test_a_single_sample_cannot_be_compared():
    with pytest.raises(ValueError, match=r"got 1 of each\. Set rollout.samples_per_problem to 2"):
        advantages.leave_one_out(SHAPED_QGA[:, :1])


def test_the_batch_mean_is_taken_per_attempt():
    found_QGA = advantages.batch_mean(SHAPED_QGA)
    for a in range(2):
        expected_QG = SHAPED_QGA[..., a] - np.mean(SHAPED_QGA[..., a])
        np.testing.assert_allclose(found_QGA[..., a], expected_QG, atol=1e-6)


def test_no_baseline_leaves_rewards_as_they_are():
    np.testing.assert_array_equal(advantages.none(SHAPED_QGA), SHAPED_QGA)


def test_standardized_advantages_have_unit_deviation_and_equal_samples_none():
    shaped_QGA = np.array([[[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]], np.float32)
    centred_QGA = advantages.leave_one_out(shaped_QGA)
    found_QGA = centred_QGA / advantages.deviation(centred_QGA)
    np.testing.assert_allclose(np.std(found_QGA[0, :, 0]), 1.0, atol=1e-6)
    np.testing.assert_allclose(found_QGA[0, :, 0], [-(1.5**0.5), 0.0, 1.5**0.5], atol=1e-6)
    np.testing.assert_array_equal(found_QGA[0, :, 1], [0.0, 0.0, 0.0])


def test_siblings_are_compared_within_their_family_and_first_attempts_between_families():
    # Two families of two: r_1 is 1 in the first family and 0 in the second; alpha = 2.
    shaped_QGA = jnp.array([[[1.0, 1.0], [1.0, -2.0], [0.0, 3.0], [0.0, 0.0]]])
    found_GA = np.asarray(advantages.advantages(shaped_QGA, "sibling", siblings=2))[0]
    np.testing.assert_allclose(found_GA[:, 0], [1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(found_GA[:, 1], [3.0, -3.0, 3.0, -3.0])


def test_a_constant_of_the_first_attempt_drops_out_among_siblings():
    offset_Q4 = jnp.array(np.random.default_rng(1).normal(size=(3, 2)), jnp.float32).repeat(2, 1)
    moved_QGA = SHAPED_QGA.at[..., 1].add(offset_Q4)
    np.testing.assert_allclose(
        advantages.sibling(moved_QGA, 2)[..., 1],
        advantages.sibling(SHAPED_QGA, 2)[..., 1],
        atol=1e-6,
    )


@pytest.mark.parametrize("siblings", [1, 3, 4])
def test_siblings_must_leave_two_families_of_two(siblings):
    with pytest.raises(ValueError, match=r"at least two families of at least two"):
        advantages.sibling(SHAPED_QGA, siblings)
