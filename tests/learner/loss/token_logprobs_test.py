import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.learner.loss import token_logprobs
from score_jax.learner.loss.token_logprobs import LikelihoodSettings
from score_jax.rl import kl, policy
from score_jax.rl.losses import TokenTerms
from score_jax.rl.policy import Policy
from tests import fakes
from tests.learner import slow

pytestmark = pytest.mark.usefixtures("quick_compile")

BATCH = fakes.batch()
WEIGHT_BT = jnp.where(BATCH.attempt > 0, np.random.default_rng(1).normal(size=(4, 11)), 0.0)
SETTINGS = LikelihoodSettings(fakes.MODEL, Policy(temperature=0.7))


@functools.partial(jax.jit, static_argnums=2)
def found(params, tokens_BT, settings: LikelihoodSettings):
    """Log-prob and entropy of BATCH's written tokens; the gradient of a sum of log-probs."""
    where = token_logprobs.written(BATCH.attempt, 6)

    weight_BN = where.take(WEIGHT_BT)
    unused_BN = jnp.full_like(weight_BN, jnp.nan)
    terms = TokenTerms(-weight_BN, unused_BN, unused_BN, unused_BN, unused_BN)

    def weighted(params):
        hidden_BND = token_logprobs.hidden_before(params, tokens_BT, where, settings)
        summed, (logp_BN, entropy_BN) = token_logprobs.loss(
            params, hidden_BND, where.take(tokens_BT), where, terms, settings
        )
        return 2.0 * summed + jnp.sum(entropy_BN), (logp_BN, entropy_BN)

    gradient, (logp_BN, entropy_BN) = jax.grad(weighted, has_aux=True)(params)
    return logp_BN, entropy_BN, jax.tree.map(lambda g: g / 2.0, gradient)


@functools.cache
def plain():
    return found(fakes.params(), BATCH.tokens, SETTINGS)


def assert_same(ours, theirs, tolerance: float):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)


def test_written_gathers_the_policys_columns_in_order():
    # p p a a i b .   and a row in which one token was written
    attempt_BT = jnp.array([[0, 0, 1, 1, 0, 2, 0], [0, 1, 0, 0, 0, 0, 0]])
    where = token_logprobs.written(attempt_BT, 4)
    np.testing.assert_array_equal(where.column, [[2, 3, 5, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(where.attempt, [[1, 1, 2, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(where.mask, [[1, 1, 1, 0], [1, 0, 0, 0]])
    value_BT = jnp.arange(14).reshape(2, 7)
    np.testing.assert_array_equal(where.take(value_BT)[0, :3], [2, 3, 5])
    assert token_logprobs.written(attempt_BT, 100).column.shape == (2, 7)


def test_log_probs_entropies_and_gradients_are_those_of_whole_rows_of_logits():
    logp_BN, entropy_BN, gradient = plain()
    logp_BT, next_BTV, expected = slow.log_probs(
        fakes.params(), BATCH.tokens, WEIGHT_BT, temperature=0.7
    )
    assert_same(gradient, expected, 1e-5)  # of log-probs only: entropy has no gradient
    for row, attempt_T in enumerate(BATCH.attempt):
        columns = np.flatnonzero(attempt_T)
        np.testing.assert_allclose(logp_BN[row, : columns.size], logp_BT[row, columns], atol=1e-5)
        before_NV = np.asarray(next_BTV)[row, columns - 1]
        expected_N = -np.sum(np.exp(before_NV) * before_NV, axis=-1)
        np.testing.assert_allclose(entropy_BN[row, : columns.size], expected_N, atol=1e-5)
        np.testing.assert_array_equal(logp_BN[row, columns.size :], 0.0)
        np.testing.assert_array_equal(entropy_BN[row, columns.size :], 0.0)


def test_log_probs_without_a_loss_are_the_same_and_have_no_gradient():
    where = token_logprobs.written(BATCH.attempt, 6)

    @jax.jit
    def log_probs(params):
        return token_logprobs.log_probs(params, BATCH.tokens, where, SETTINGS)

    assert_same(log_probs(fakes.params()), plain()[:2], 1e-6)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda params: jnp.sum(log_probs(params)[0]))(fakes.params())


def test_padding_after_a_row_is_never_seen():
    column_T = np.arange(BATCH.tokens.shape[1])
    scrambled_BT = np.where(column_T < BATCH.length[:, None], BATCH.tokens, 3).astype(np.int32)
    assert np.any(scrambled_BT != BATCH.tokens)
    assert_same(found(fakes.params(), scrambled_BT, SETTINGS), plain(), 0.0)


@pytest.mark.parametrize(
    "changes", [{"chunk": 1, "remat": "full"}, {"chunk": 5, "remat": "none"}], ids=str
)
def test_chunks_and_remat_change_nothing(changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    assert_same(found(fakes.params(), BATCH.tokens, settings), plain(), 1e-6)


def test_every_token_that_was_drawn_has_a_finite_log_prob_under_any_truncation():
    settings = dataclasses.replace(SETTINGS, policy=Policy(top_k=1, top_p=0.5))
    logp_BN, _, gradient = found(fakes.params(), BATCH.tokens, settings)
    assert np.all(np.isfinite(logp_BN)) and np.min(logp_BN) < 0.0
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


def test_a_row_of_padding_of_the_embedding_is_as_if_it_were_not_there():
    padded = dataclasses.replace(fakes.MODEL, vocab_size=fakes.MODEL.vocab_size + 2)
    known = Policy(temperature=0.7, vocabulary=fakes.MODEL.vocab_size)
    settings = dataclasses.replace(SETTINGS, model=padded, policy=known)
    more = fakes.params(padded, seed=3)
    less = more | {"embedding": more["embedding"][:-2]}
    if "head" in more:
        less["head"] = more["head"][:, :-2]
    ours, theirs = found(more, BATCH.tokens, settings), found(less, BATCH.tokens, SETTINGS)
    assert_same(ours[:2], theirs[:2], 1e-6)
    for name in ("embedding", "head"):
        if name in more:
            padding = (slice(-2, None),) if name == "embedding" else (slice(None), slice(-2, None))
            assert not np.any(ours[2][name][padding]), "no gradient reaches it"


def test_the_exact_kl_leaves_forbidden_tokens_out():
    forbids = Policy(forbidden=(3,))
    logits_V = policy.allow(jnp.array([1.0, 2.0, 0.5, 4.0]), forbids)
    other_V = policy.allow(jnp.array([1.0, 0.0, 0.5, -9.0]), forbids)
    here = (slice(None, 3),)
    expected = kl.exact(logits_V[here], other_V[here])
    np.testing.assert_allclose(kl.exact(logits_V, other_V), expected, rtol=1e-6)
