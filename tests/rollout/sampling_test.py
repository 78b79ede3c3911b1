"""Tokens drawn by inverse CDF: frequencies, no token of probability 0, and log-probs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from score_jax.rl.policy import Policy
from score_jax.rollout.sampling import BLOCK, sample

PLAIN, GREEDY = Policy(), Policy(temperature=0.0)
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))

pytestmark = pytest.mark.usefixtures("quick_compile")

jitted = jax.jit(sample, static_argnums=2)


def draw(logits_V: np.ndarray, uniform_B: np.ndarray, policy: Policy = PLAIN):
    """One token per uniform, all from the same logits: tokens and log-probs."""
    logits_BV = np.broadcast_to(logits_V.astype(np.float32), (len(uniform_B), len(logits_V)))
    return jax.device_get(jitted(logits_BV, np.asarray(uniform_B, np.float32), policy))


def softmax(logits_V: np.ndarray) -> np.ndarray:
    weight_V = np.exp(logits_V.astype(np.float64) - np.max(logits_V))
    return weight_V / weight_V.sum()


def holed_logits(vocabulary: int, kind: str) -> np.ndarray:
    """Random logits, -inf where the kind requires it."""
    logits_V = np.random.default_rng(vocabulary).normal(size=vocabulary)
    if kind == "first half":
        logits_V[: vocabulary // 2] = -np.inf
    if kind == "second half":
        logits_V[(vocabulary + 1) // 2 :] = -np.inf
    if kind == "every other":
        logits_V[1::2] = -np.inf
    if kind == "all but the middle":
        logits_V[np.arange(vocabulary) != vocabulary // 2] = -np.inf
    return logits_V


@pytest.mark.parametrize("vocabulary", [7, 300])
def test_an_even_grid_of_uniforms_draws_each_token_in_proportion(vocabulary):
    logits_V = np.random.default_rng(0).normal(size=vocabulary)
    grid_B = (np.arange(4096) + 0.5) / 4096
    token_B, _ = draw(logits_V, grid_B)
    count_V = np.bincount(token_B, minlength=vocabulary)
    # An interval of the unit line holds its length's share of grid points, to one at either end.
    assert np.abs(count_V - 4096 * softmax(logits_V)).max() <= 1.01
    assert np.all(np.diff(token_B) >= 0), "the intervals are in the order of the vocabulary"


@pytest.mark.parametrize("policy", [PLAIN, Policy(temperature=0.5, top_k=200)], ids=str)
def test_frequencies_match_the_probabilities(policy):
    logits_V = 0.5 * np.random.default_rng(1).normal(size=300)
    token_B, _ = draw(logits_V, np.random.default_rng(2).random(2**13), policy)
    logits_V /= policy.temperature
    if policy.top_k:
        logits_V[np.argsort(-logits_V)[policy.top_k :]] = -np.inf
    expected_V = 2**13 * softmax(logits_V)
    count_V = np.bincount(token_B, minlength=300)
    kept_V = expected_V > 0
    assert not count_V[~kept_V].any()
    chi2 = np.sum((count_V - expected_V)[kept_V] ** 2 / expected_V[kept_V])
    freedom = kept_V.sum() - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations


@pytest.mark.parametrize("vocabulary", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 2])
def test_a_token_of_no_probability_is_never_drawn(vocabulary):
    rng = np.random.default_rng(3)
    uniform_B = np.concatenate([[0.0, 1e-30, ALMOST_ONE], rng.random(61)])
    for kind in ("no holes", "first half", "second half", "every other", "all but the middle"):
        logits_V = holed_logits(vocabulary, kind)
        if np.all(np.isneginf(logits_V)):
            continue
        token_B, logp_B = draw(logits_V, uniform_B)
        assert np.all((token_B >= 0) & (token_B < vocabulary)), kind
        assert np.all(np.isfinite(logits_V[token_B])), kind
        assert np.all(np.isfinite(logp_B)), kind
        possible = np.flatnonzero(np.isfinite(logits_V))
        assert token_B[0] == possible[0], f"uniform 0 draws the first of them: {kind}"
        assert token_B[2] == possible[-1], f"a uniform just below 1 draws the last: {kind}"


def test_a_token_of_no_probability_is_never_drawn_at_the_seams_of_a_large_vocabulary():
    # Sums over hundreds of blocks are rounded in an order of their own: the cumulated weight can
    # grow over an empty block, and a uniform can fall right there.
    rows, blocks, rng = np.arange(32), 384, np.random.default_rng(0)
    logits_BV = np.full((len(rows), blocks * BLOCK), -np.inf, np.float32)
    for logits_V in logits_BV:
        logits_V[rng.choice(len(logits_V), 200, replace=False)] = 2 * rng.normal(size=200)
    weight_BV = jnp.exp(logits_BV - logits_BV.max(-1, keepdims=True))
    block_BM = jnp.sum(weight_BV.reshape(len(rows), blocks, BLOCK), axis=-1)
    total_BM = np.asarray(jnp.cumsum(block_BM, axis=-1))
    grown_BM = (np.diff(total_BM) > 0) & (np.asarray(block_BM)[:, 1:] == 0)
    seam_B = grown_BM.argmax(-1)  # a row without such a block is tried at its first
    uniform_B = total_BM[rows, seam_B] / np.asarray(jnp.sum(weight_BV, axis=-1))
    for ulps in range(-3, 4):
        token_B, logp_B = jitted(logits_BV, uniform_B + ulps * np.spacing(uniform_B), PLAIN)
        assert np.all(np.isfinite(logits_BV[rows, token_B])), f"{ulps} ulps from a seam"
        assert np.all(np.isfinite(logp_B))


@pytest.mark.parametrize("temperature, top_k, top_p", [(1.0, 0, 1.0), (0.6, 5, 1.0), (2.0, 0, 0.7)])
def test_log_probs_are_those_of_the_distribution_drawn_from(temperature, top_k, top_p):
    logits_V = 3 * np.random.default_rng(4).normal(size=300)
    policy = Policy(temperature, top_k, top_p)
    token_B, logp_B = draw(logits_V, np.random.default_rng(5).random(500), policy)
    p_V = softmax(logits_V / temperature)
    order = np.argsort(-p_V)
    if top_k:
        p_V[order[top_k:]] = 0.0
    mass_V = np.cumsum(p_V[order])
    p_V[order[np.searchsorted(mass_V, top_p) + 1 :]] = 0.0
    logp_V = np.log(p_V, where=p_V > 0, out=np.full(300, -np.inf)) - np.log(p_V.sum())
    np.testing.assert_allclose(logp_B, logp_V[token_B], rtol=0, atol=2e-6)


def test_log_probs_survive_logits_far_from_zero():
    logits_V = np.array([1e4, 1e4 - 2, -1e4])
    token_B, logp_B = draw(logits_V, np.array([0.1, 0.95]))
    assert token_B.tolist() == [0, 1]
    np.testing.assert_allclose(logp_B, np.array([0, -2]) - np.log1p(np.exp(-2)), atol=1e-6)


def test_greedy_takes_the_first_of_the_largest_with_certainty():
    logits_BV = np.array([[0.0, 3.0, 3.0, 1.0], [-np.inf, -2.0, -5.0, -2.5]], np.float32)
    token_B, logp_B = jitted(logits_BV, np.full(2, 0.99, np.float32), GREEDY)
    assert token_B.tolist() == [1, 1]
    assert logp_B.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("greedy", [True, False])
def test_greedy_may_be_an_argument_of_the_compiled_program(greedy):
    logits_BV = jax.random.normal(jax.random.key(0), (40, 300))
    uniform_B, policy = jax.random.uniform(jax.random.key(1), 40), Policy(vocabulary=250)
    alone = dataclasses.replace(policy, temperature=0.0) if greedy else policy
    one_program = jax.jit(sample, static_argnums=(2, 3))
    token_B, logp_B = one_program(logits_BV, uniform_B, policy, "", greedy)
    right_B, right_logp_B = jitted(logits_BV, uniform_B, alone)
    np.testing.assert_array_equal(token_B, right_B)
    np.testing.assert_allclose(logp_B, right_logp_B, atol=1e-6)


def test_rows_are_drawn_each_from_their_own_logits():
    rng = np.random.default_rng(6)
    logits_BV, uniform_B = rng.normal(size=(64, 300)), rng.random(64)
    token_B, _ = jitted(logits_BV.astype(np.float32), uniform_B.astype(np.float32), PLAIN)
    for b in range(64):
        assert token_B[b] == np.argmax(np.cumsum(softmax(logits_BV[b])) > uniform_B[b])


@pytest.mark.parametrize("policy", [PLAIN, GREEDY, Policy(0.7, top_k=9, top_p=0.9)], ids=str)
@pytest.mark.parametrize("vocabulary", [12, 4 * BLOCK, 4 * BLOCK + 8])
def test_a_vocabulary_split_over_devices_draws_the_same_everywhere(policy, vocabulary):
    rng = np.random.default_rng(7)
    logits_BV = 2 * rng.normal(size=(64, vocabulary)).astype(np.float32)
    logits_BV[:2, 3] = logits_BV[:2, -1] = 9.0  # of equal ones greedy takes the first
    logits_BV[2:4, : vocabulary // 4] = -np.inf  # all of a device's share
    uniform_B = rng.random(64).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()[:4]), ("part",))
    split = jax.jit(
        jax.shard_map(
            functools.partial(sample, policy=policy, split_over="part"),
            mesh=mesh,
            in_specs=(jax.P(None, "part"), jax.P()),
            out_specs=jax.P("part"),
            check_vma=False,
        )
    )
    token_B, logp_B = jitted(logits_BV, uniform_B, policy)
    token_PB, logp_PB = (x.reshape(4, 64) for x in split(logits_BV, uniform_B))
    for part in range(4):
        np.testing.assert_array_equal(token_PB[part], token_B)
        np.testing.assert_allclose(logp_PB[part], logp_B, rtol=0, atol=2e-6)
