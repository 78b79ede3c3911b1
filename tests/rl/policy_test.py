import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.rl import policy
from score_jax.rl.policy import Policy

LOGITS_BV = (2.0 * np.random.default_rng(0).normal(size=(20, 7))).astype(np.float32)
SETTINGS = [
    Policy(),
    Policy(temperature=0.6),
    Policy(top_k=3),
    Policy(top_k=1),
    Policy(top_k=7),  # all there are
    Policy(top_p=0.7),
    Policy(top_p=1e-6),
    Policy(temperature=1.7, top_k=4, top_p=0.8),
]


def slow_probabilities(logits_V, settings: Policy) -> np.ndarray:
    """Token by token, by the words of Policy's fields."""
    weight_V = np.exp(np.asarray(logits_V, np.float64) / settings.temperature)
    best_first = sorted(range(len(weight_V)), key=lambda v: -weight_V[v])
    if settings.top_k:
        best_first = best_first[: settings.top_k]
    total = sum(weight_V[v] for v in best_first)
    kept, mass = [], 0.0
    for v in best_first:
        kept.append(v)
        mass += weight_V[v] / total
        if settings.top_p < 1.0 and mass >= settings.top_p:
            break
    probability_V = np.zeros(len(weight_V))
    for v in kept:
        probability_V[v] = weight_V[v] / sum(weight_V[w] for w in kept)
    return probability_V


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_distribution_is_that_of_a_slow_loop(settings):
    found_BV = jax.nn.softmax(policy.distort(jnp.asarray(LOGITS_BV), settings), axis=-1)
    expected_BV = [slow_probabilities(logits_V, settings) for logits_V in LOGITS_BV]
    np.testing.assert_allclose(found_BV, expected_BV, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_kept_tokens_log_prob_is_the_log_of_its_probability(settings):
    distorted_BV = policy.distort(jnp.asarray(LOGITS_BV), settings)
    for v in range(LOGITS_BV.shape[1]):
        found_B, _ = policy.log_prob_and_entropy(distorted_BV, jnp.full(len(LOGITS_BV), v))
        expected_B = [slow_probabilities(logits_V, settings)[v] for logits_V in LOGITS_BV]
        np.testing.assert_allclose(np.exp(found_B), expected_B, atol=1e-6)


def test_ties_at_the_threshold_are_all_kept():
    logits_V = jnp.array([2.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(
        np.isfinite(policy.distort(logits_V, Policy(top_k=2))), [True, True, True, False]
    )


def test_options_that_are_off_cost_nothing():
    logits_BV = jnp.asarray(LOGITS_BV)
    drawn_B = jnp.zeros(len(LOGITS_BV), jnp.int32)
    assert policy.distort(logits_BV, Policy(top_k=0, top_p=1.0), drawn_B) is logits_BV


@pytest.mark.parametrize("settings", [Policy(0.5, top_k=2), Policy(0.5, top_p=0.3)], ids=str)
def test_a_drawn_token_is_kept_under_any_truncation(settings):
    plain_BV = policy.distort(jnp.asarray(LOGITS_BV), settings)
    drawn_B = np.argmin(LOGITS_BV, axis=1)
    found_BV = policy.distort(jnp.asarray(LOGITS_BV), settings, drawn_B)
    for b, v in np.ndindex(LOGITS_BV.shape):
        expected = LOGITS_BV[b, v] / 0.5 if v == drawn_B[b] else plain_BV[b, v]
        assert found_BV[b, v] == expected


def test_truncated_tokens_have_no_gradient_and_do_not_change_others():
    def distorted(logits_V):
        return policy.distort(logits_V, Policy(top_k=2))

    def both(logits_V):  # of entropy there is no gradient
        return sum(policy.log_prob_and_entropy(distorted(logits_V), jnp.int32(0)))

    def alone(logits_V):
        return policy.log_prob_and_entropy(distorted(logits_V), jnp.int32(0))[0]

    second = 1.0 / (1.0 + np.e)
    for logp in (alone, both):
        slope_V = jax.grad(logp)(jnp.array([2.0, 1.0, 0.0, -1.0]))
        np.testing.assert_allclose(slope_V, [second, -second, 0.0, 0.0], rtol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_entropy_is_that_of_the_distribution_sampled_from(settings):
    distorted_BV = policy.distort(jnp.asarray(LOGITS_BV), settings)
    likeliest_B = jnp.argmax(distorted_BV, axis=-1)
    logp_B, found_B = policy.log_prob_and_entropy(distorted_BV, likeliest_B)
    logp_BV = jax.nn.log_softmax(distorted_BV, axis=-1)
    np.testing.assert_allclose(logp_B, np.max(logp_BV, axis=-1), atol=1e-6)
    for found, logits_V in zip(found_B, LOGITS_BV, strict=True):
        kept = [p for p in slow_probabilities(logits_V, settings) if p > 0.0]
        np.testing.assert_allclose(found, -sum(p * np.log(p) for p in kept), atol=1e-5)


def test_what_may_never_be_sampled_has_no_probability_and_others_share_it():
    settings = Policy(vocabulary=5, forbidden=(1, 3))
    weight_BV = jax.nn.softmax(policy.distort(policy.allow(LOGITS_BV, settings), settings))
    never = [1, 3, 5, 6]
    assert not np.any(np.asarray(weight_BV)[:, never])
    left_BV = np.delete(LOGITS_BV, never, axis=1)
    np.testing.assert_allclose(np.delete(weight_BV, never, axis=1), jax.nn.softmax(left_BV), 1e-6)


def test_without_ids_to_forbid_the_logits_are_the_same_array():
    logits_V = jnp.zeros(3)
    assert policy.allow(logits_V, Policy(0.7, top_k=2)) is logits_V
