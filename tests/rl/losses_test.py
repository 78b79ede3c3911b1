import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config import settings
from score_jax.config.settings import StageSettings
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


def test_settings_know_every_normalizer():
    assert settings.CHOICES[StageSettings, "normalizer"] == losses.NORMALIZERS
