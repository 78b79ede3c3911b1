"""Masks: which tokens an attempt has, for rows of any lengths."""

import hypothesis.extra.numpy as arrays
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.learner.loss import token_logprobs
from score_jax.rl import kl, losses

B, T, A = 3, 9, 3
ATTEMPTS = arrays.arrays(np.int32, (B, T), elements=st.integers(0, A)).map(
    lambda x: np.where(np.arange(T) == 0, 0, x)  # a row begins with its prompt
)
VALUES = arrays.arrays(np.float32, (B, T), elements=st.integers(-8, 8).map(float))
FEW = settings(max_examples=60, deadline=None)


@FEW
@given(ATTEMPTS, VALUES)
def test_the_written_tokens_are_gathered_in_order_and_no_other(attempt_BT, value_BT):
    where = token_logprobs.written(jnp.asarray(attempt_BT), T)
    found_BN, mask_BN = np.asarray(where.take(jnp.asarray(value_BT))), np.asarray(where.mask)
    for b in range(B):
        np.testing.assert_array_equal(found_BN[b][mask_BN[b]], value_BT[b][attempt_BT[b] > 0])


@FEW
@given(ATTEMPTS, VALUES)
def test_sums_per_attempt_add_up_to_the_sum_of_all_written_tokens(attempt_BT, value_BT):
    found_BA = np.asarray(kl.per_attempt(jnp.asarray(value_BT), jnp.asarray(attempt_BT), A))
    for a in range(A):
        by_hand_B = np.where(attempt_BT == a + 1, value_BT, 0).sum(axis=1)
        np.testing.assert_array_equal(found_BA[:, a], by_hand_B)
    np.testing.assert_array_equal(found_BA.sum(axis=1), (value_BT * (attempt_BT > 0)).sum(axis=1))


@FEW
@given(ATTEMPTS, VALUES, VALUES)
def test_no_value_outside_the_mask_reaches_the_loss(attempt_BT, logp_BT, advantage_BT):
    mask_BT = attempt_BT > 0
    outside = np.where(mask_BT, logp_BT, np.nan).astype(np.float32)
    found = losses.reinforce_sum(
        *(jnp.asarray(x) for x in (outside, np.where(mask_BT, advantage_BT, np.nan), mask_BT))
    )
    np.testing.assert_allclose(found, -(logp_BT * advantage_BT)[mask_BT].sum(), rtol=1e-6)
