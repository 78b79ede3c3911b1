import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.rl import kl

_DRAW = np.random.default_rng(0)
LOGITS_V, REFERENCE_LOGITS_V = _DRAW.normal(size=(2, 6)).astype(np.float32)
REFERENCE_LOGP_V = np.asarray(jax.nn.log_softmax(REFERENCE_LOGITS_V))


def reverse_kl(logits_V):
    """KL(policy || reference)."""
    logp_V = jax.nn.log_softmax(logits_V)
    return jnp.sum(jnp.exp(logp_V) * (logp_V - REFERENCE_LOGP_V))


def forward_kl(logits_V):
    """KL(reference || policy)."""
    logp_V = jax.nn.log_softmax(logits_V)
    return jnp.sum(jnp.exp(REFERENCE_LOGP_V) * (REFERENCE_LOGP_V - logp_V))


def expected(estimator, logits_V):
    """Mean of an estimator over every token the policy might draw; draws are not differentiated."""
    logp_V = jax.nn.log_softmax(logits_V)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp_V)) * estimator(logp_V, REFERENCE_LOGP_V))


@pytest.mark.parametrize("estimator", [kl.k1, kl.k3])
def test_k1_and_k3_are_unbiased(estimator):
    np.testing.assert_allclose(expected(estimator, LOGITS_V), reverse_kl(LOGITS_V), rtol=1e-5)


def test_the_exact_kl_and_its_gradient_are_the_reverse_kls():
    theirs, their_gradient = jax.value_and_grad(reverse_kl)(LOGITS_V)
    ours, gradient = jax.value_and_grad(kl.exact)(LOGITS_V + 3.0, REFERENCE_LOGITS_V - 2.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(gradient, their_gradient, atol=1e-6)


def test_k2_is_half_the_mean_squared_log_ratio():
    logp_V = np.asarray(jax.nn.log_softmax(LOGITS_V), np.float64)
    value = np.sum(np.exp(logp_V) * (logp_V - REFERENCE_LOGP_V) ** 2) / 2
    np.testing.assert_allclose(expected(kl.k2, LOGITS_V), value, rtol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [
        (kl.k1, lambda _: 0.0),  # why k1 is never a loss
        (kl.k2, reverse_kl),
        (kl.k3, forward_kl),
    ],
    ids=["k1", "k2", "k3"],
)
def test_expected_gradients(estimator, divergence):
    ours = jax.grad(lambda logits_V: expected(estimator, logits_V))(LOGITS_V)
    theirs = jax.grad(lambda logits_V: divergence(logits_V) + 0.0 * jnp.sum(logits_V))(LOGITS_V)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("estimator", [kl.k1, kl.k2, kl.k3])
def test_the_kl_of_the_policy_to_itself_is_0(estimator):
    np.testing.assert_array_equal(estimator(REFERENCE_LOGP_V, REFERENCE_LOGP_V), 0.0)


def test_k2_and_k3_are_never_negative_and_k1_may_be():
    far_N, near_N = jnp.array([-3.0, -1.0, -0.1]), jnp.array([-0.5, -1.0, -2.0])
    assert np.min(kl.k1(far_N, near_N)) < 0.0
    assert np.min(kl.k2(far_N, near_N)) == np.min(kl.k3(far_N, near_N)) == 0.0


def test_k3_keeps_the_digits_of_a_small_difference():
    # With exp(x) - 1 - x in float32, 1e-3 squared over two would drown in rounding.
    np.testing.assert_allclose(kl.k3(jnp.float32(-1e-3), jnp.float32(0.0)), 5.0017e-7, rtol=5e-3)


def test_tokens_are_summed_into_their_attempt_and_attempt_0_into_none():
    value_BN = jnp.array([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]], np.float32)
    attempt_BN = jnp.array([[1, 1, 3, 0], [0, 2, 0, 2]], np.int32)
    found_BA = kl.per_attempt(value_BN, attempt_BN, 3)
    np.testing.assert_array_equal(found_BA, [[3.0, 0.0, 4.0], [0.0, 160.0, 0.0]])


def test_values_of_attempt_0_are_never_read():
    value_BN = jnp.array([[1.0, np.nan]], np.float32)
    np.testing.assert_array_equal(kl.per_attempt(value_BN, jnp.array([[2, 0]]), 2), [[0.0, 1.0]])
