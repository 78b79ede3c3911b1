import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.rl import losses

LOGP_BN = jnp.array([[-1.0, -2.0, -4.0], [-8.0, np.nan, -16.0]], jnp.float32)
ADVANTAGE_BN = jnp.array([[1.0, 1.0, -0.5], [3.0, 50.0, 100.0]], jnp.float32)
MASK_BN = jnp.array([[True, True, True], [True, False, False]])


def test_the_loss_is_the_negative_sum_over_the_masks_tokens():
    loss = losses.reinforce_sum(LOGP_BN, ADVANTAGE_BN, MASK_BN)
    np.testing.assert_allclose(loss, 1.0 + 2.0 - 2.0 + 24.0)


def test_its_gradient_is_minus_the_advantage_where_the_mask_is_1_and_0_elsewhere():
    slope_BN = jax.grad(losses.reinforce_sum)(LOGP_BN, ADVANTAGE_BN, MASK_BN)
    np.testing.assert_array_equal(slope_BN, [[-1.0, -1.0, 0.5], [-3.0, 0.0, 0.0]])


def test_advantages_get_no_gradient():
    slope_BN = jax.grad(losses.reinforce_sum, argnums=1)(LOGP_BN, ADVANTAGE_BN, MASK_BN)
    np.testing.assert_array_equal(slope_BN, 0.0)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"one shape, not \(2, 3\), \(2, 1\), \(2, 3\)"):
        losses.reinforce_sum(LOGP_BN, ADVANTAGE_BN[:, :1], MASK_BN)


@pytest.mark.parametrize(("name", "divisor"), [("sequence", 2), ("token", 4), ("constant", 20)])
def test_normalizers_by_hand(name, divisor):
    assert losses.normalizer(MASK_BN, name, 10) == divisor


def test_a_batch_without_any_token_is_divided_by_1():
    assert losses.normalizer(jnp.zeros((2, 3), bool), "token", 10) == 1.0


def test_an_unknown_normalizer_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'mean'; known: sequence, token, constant"):
        losses.normalizer(MASK_BN, "mean", 10)


def terms(**changes) -> losses.TokenTerms:
    """Those of three tokens of one row, whose last was not written."""
    arrays = {
        "advantage": [1.0, -2.0, np.nan],
        "behaviour": [-1.0, -3.0, np.nan],
        "importance_cap": [1.5, 1.5, 1.5],
        "reference": [-2.0, -2.5, np.nan],
        "kl_coefficient": [0.5, 0.25, 0.0],
    }
    return losses.TokenTerms(**{k: jnp.array([v]) for k, v in (arrays | changes).items()})


def token_loss(kl_BN=None, **choices):
    """Of tokens with log-probs -1 and -2; the choices as in losses.token_loss."""
    logp_BN, mask_BN = jnp.array([[-1.0, -2.0, np.nan]]), jnp.array([[True, True, False]])
    choices = {"kl_estimator": "k1", "weighted": False} | choices
    return losses.token_loss(logp_BN, kl_BN, mask_BN, terms(), **choices)


def test_the_loss_of_tokens_by_hand():
    np.testing.assert_allclose(token_loss(), 1.0 - 4.0)
    np.testing.assert_allclose(token_loss(weighted=True), 1.0 - 4.0 * 1.5)  # exp(1) is capped
    k2 = 0.5 * 0.5 * 1.0**2 + 0.25 * 0.5 * 0.5**2
    np.testing.assert_allclose(token_loss(kl_estimator="k2"), -3.0 + k2, rtol=1e-6)
    whole_BN = jnp.array([[2.0, 4.0, np.nan]])
    np.testing.assert_allclose(token_loss(whole_BN, kl_estimator="exact"), -3.0 + 1.0 + 1.0)
