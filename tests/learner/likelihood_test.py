import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.learner import likelihood
from score_jax.learner.likelihood import LikelihoodSettings
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from tests import fakes

BATCH = fakes.batch()
SETTINGS = LikelihoodSettings(fakes.MODEL, Policy(temperature=0.7))


@functools.partial(jax.jit, static_argnums=2)
def found(params, tokens_BT, settings: LikelihoodSettings):
    """log-prob and entropy of BATCH's written tokens, and the gradient of a sum over both."""
    where = likelihood.written(BATCH.attempt, 6)
    weight_BN = jnp.sin(1.0 + jnp.arange(where.column.size)).reshape(where.column.shape)

    def weighted(params):
        logp_BN, entropy_BN = likelihood.log_probs(params, tokens_BT, where, settings)
        return jnp.sum(weight_BN * (logp_BN + entropy_BN)), (logp_BN, entropy_BN)

    gradient, (logp_BN, entropy_BN) = jax.grad(weighted, has_aux=True)(params)
    return logp_BN, entropy_BN, gradient


@functools.cache
def plain():
    return found(fakes.params(), BATCH.tokens, SETTINGS)


def assert_same(ours, theirs, tolerance):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)


def test_written_gathers_the_policys_columns_in_order():
    # p p a a i b .   and a row in which one token was written
    attempt_BT = np.array([[0, 0, 1, 1, 0, 2, 0], [0, 1, 0, 0, 0, 0, 0]])
    where = likelihood.written(attempt_BT, 4)
    np.testing.assert_array_equal(where.column, [[2, 3, 5, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(where.attempt, [[1, 1, 2, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(where.mask, [[1, 1, 1, 0], [1, 0, 0, 0]])
    value_BT = np.arange(14).reshape(2, 7)
    np.testing.assert_array_equal(where.take(value_BT)[0, :3], [2, 3, 5])
    assert likelihood.written(attempt_BT, 100).column.shape == (2, 7)


def test_log_probs_and_entropies_are_those_of_whole_rows_of_logits():
    logp_BN, entropy_BN, _ = plain()
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(
        fakes.MODEL, fakes.params(), BATCH.tokens
    )
    logp_BTV = np.asarray(logits_BTV, np.float64) / 0.7
    logp_BTV -= np.log(np.sum(np.exp(logp_BTV), axis=-1, keepdims=True))
    for b, attempt_T in enumerate(BATCH.attempt):
        columns = np.flatnonzero(attempt_T)
        before_NV = logp_BTV[b, columns - 1]
        expected_N = before_NV[np.arange(columns.size), BATCH.tokens[b, columns]]
        np.testing.assert_allclose(logp_BN[b, : columns.size], expected_N, atol=1e-5)
        expected_N = -np.sum(np.exp(before_NV) * before_NV, axis=-1)
        np.testing.assert_allclose(entropy_BN[b, : columns.size], expected_N, atol=1e-5)
        np.testing.assert_array_equal(logp_BN[b, columns.size :], 0.0)
        np.testing.assert_array_equal(entropy_BN[b, columns.size :], 0.0)


def test_padding_behind_a_row_is_never_seen():
    column_T = np.arange(BATCH.tokens.shape[1])
    scrambled_BT = np.where(column_T < BATCH.length[:, None], BATCH.tokens, 3)
    assert np.any(scrambled_BT != BATCH.tokens)
    ours = found(fakes.params(), scrambled_BT.astype(np.int32), SETTINGS)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(plain()), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "changes", [{"chunk": 1}, {"chunk": 5, "remat": True}, {"chunk": 1000}], ids=str
)
def test_chunks_and_remat_change_nothing(changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    assert_same(found(fakes.params(), BATCH.tokens, settings), plain(), 1e-6)


def test_entropy_gets_no_gradient():
    entropy_only = jax.grad(
        lambda p: jnp.sum(
            likelihood.log_probs(p, BATCH.tokens, likelihood.written(BATCH.attempt, 6), SETTINGS)[1]
        )
    )
    for slope in jax.tree.leaves(jax.jit(entropy_only)(fakes.params())):
        np.testing.assert_array_equal(slope, 0.0)


def test_every_token_that_was_drawn_has_a_finite_log_prob_under_any_truncation():
    settings = dataclasses.replace(SETTINGS, policy=Policy(top_k=1, top_p=0.5))
    logp_BN, _, gradient = found(fakes.params(), BATCH.tokens, settings)
    assert np.all(np.isfinite(logp_BN)) and np.min(logp_BN) < 0.0
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))
