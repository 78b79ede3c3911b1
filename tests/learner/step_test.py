import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config import StageSettings
from score_jax.learner import step
from score_jax.learner.step import Choices, Coefficients
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from tests import fakes
from tests.learner import exact

# Larger KL weights than a run would use, so that an error in a KL term is not a rounding error.
STAGE1 = fakes.stage(reward_attempt1=0.0, kl_attempt1=0.5, kl_attempt2=0.05)
STAGE2 = fakes.stage(bonus=10.0, kl_attempt1=0.1, kl_attempt2=0.2)
DISCOUNTED = fakes.stage(bonus=1.0, discount=0.8, kl_attempt1=0.1, kl_attempt2=0.2)
NO_KL = {"kl_attempt1": 0.0, "kl_attempt2": 0.0}
TEMPERATURE = 0.7  # of the exact expectations
BATCH = fakes.batch()

gradient_of = jax.jit(step.loss_gradient, static_argnames=("choices", "settings"))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def gradient(stage: StageSettings, batch, reference="another", **settings) -> np.ndarray:
    """The step's gradient at fakes.params(), as one vector."""
    reference = fakes.params(seed=1) if reference == "another" else reference
    found, _ = gradient_of(
        fakes.params(),
        reference,
        batch,
        Coefficients.of(stage),
        choices=Choices.of(stage),
        settings=fakes.learner_settings(**settings),
    )
    return flat(found)


def only(attempt: int, batch):
    """The batch with the tokens of one attempt only as the policy's own."""
    return batch.replace(attempt=np.where(batch.attempt == attempt, attempt, 0).astype(np.int32))


def flip_second_reward(batch):
    return batch.replace(reward=np.stack([batch.reward[:, 0], 1.0 - batch.reward[:, 1]], 1))


# Exact expectations, over every episode there can be


@functools.partial(jax.jit, static_argnames=("choices", "settings"))
def _gradients(params, reference, batches, coefficients, *, choices, settings):
    def one(batch):
        return step.loss_gradient(
            params, reference, batch, coefficients, choices=choices, settings=settings
        )[0]

    return jax.vmap(one)(batches)


@functools.cache
def exact_params(seed: int):
    return fakes.params(exact.CONFIG, seed)


def expected_gradient(
    stage: StageSettings, *, samples: int = 2, attempt: int | None = None
) -> np.ndarray:
    """E of the step's gradient over independent samples of one problem, all groups summed up."""
    params, reference = exact_params(0), exact_params(1)
    episodes, probability = jax.device_get(exact.episodes(params, TEMPERATURE))
    if attempt:
        episodes = only(attempt, episodes)
    groups = np.array([*itertools.product(range(len(exact.TOKENS_BT)), repeat=samples)])
    found = _gradients(
        params,
        reference,
        jax.tree.map(lambda x: x[groups], episodes),
        Coefficients.of(stage),
        choices=Choices.of(stage),
        settings=fakes.learner_settings(
            exact.CONFIG,
            policy=Policy(TEMPERATURE),
            samples=samples,
            max_attempt_tokens=exact.MAX_TOKENS,
        ),
    )
    weight = np.prod(probability.astype(np.float64)[groups], axis=1)
    return flat(jax.tree.map(lambda x: np.tensordot(weight, np.asarray(x, np.float64), 1), found))


_exact = jax.jit(jax.grad(exact.objective))


def exact_gradient(stage: StageSettings, train=(1.0, 1.0)) -> np.ndarray:
    """Of what is minimised."""
    return -flat(
        _exact(exact_params(0), exact_params(1), Coefficients.of(stage), TEMPERATURE, train)
    )


def test_every_episode_is_written_out_once():
    assert len(np.unique(exact.TOKENS_BT + 10 * exact.ATTEMPT_BT, axis=0)) == 49
    np.testing.assert_allclose(
        exact.episodes(exact_params(0), TEMPERATURE)[1].sum(), 1.0, rtol=1e-6
    )


@pytest.mark.parametrize("stage", [STAGE1, STAGE2, DISCOUNTED], ids=["1", "2", "discounted"])
def test_the_expected_gradient_is_that_of_the_exact_objective(stage):
    found = expected_gradient(stage)
    assert relative_error(found, exact_gradient(stage)) <= 1e-5


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_attempt_is_trained_by_its_own_part_of_the_objective(attempt):
    found = expected_gradient(STAGE2, attempt=attempt)
    assert relative_error(found, exact_gradient(STAGE2, tuple(np.eye(2)[attempt - 1]))) <= 1e-5


def test_at_discount_0_the_bonus_multiplies_what_trains_attempt_2():
    bonus, plain = fakes.stage(bonus=10.0, **NO_KL), fakes.stage(bonus=0.0, **NO_KL)
    found = expected_gradient(bonus, attempt=2)
    assert relative_error(found, 11.0 * expected_gradient(plain, attempt=2)) <= 1e-5


_exact_kl = jax.jit(jax.grad(exact.kl_by_tokens))


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_a_kl_loss_adds_its_divergences_gradient_at_every_token(name):
    stage = dataclasses.replace(STAGE2, bonus=1.0, baseline="none", kl_estimator=name)
    rewards = dataclasses.replace(stage, **NO_KL)
    kl = _exact_kl(
        exact_params(0), exact_params(1), Coefficients.of(stage), TEMPERATURE, float(name == "k3")
    )
    found = expected_gradient(stage, samples=1)
    assert relative_error(found, exact_gradient(rewards) + flat(kl)) <= 1e-5


# What a single batch's gradient depends on


@pytest.mark.parametrize("stage", [STAGE1, STAGE2], ids=["1", "2"])
def test_the_second_reward_never_moves_the_gradient_of_the_first_attempt(stage):
    batch = BATCH
    flipped = flip_second_reward(batch)
    ours, theirs = (gradient(stage, only(1, b)) for b in (batch, flipped))
    assert np.linalg.norm(ours) > 0.0
    np.testing.assert_array_equal(ours, theirs)
    assert relative_error(gradient(stage, only(2, batch)), gradient(stage, only(2, flipped))) > 0.1
    # The two attempts' gradients are the whole of it.
    np.testing.assert_allclose(
        ours + gradient(stage, only(2, batch)), gradient(stage, batch), atol=1e-5
    )


def test_with_a_discount_the_second_reward_trains_the_first_attempt():
    batch = BATCH
    flipped = flip_second_reward(batch)
    ours, theirs = (gradient(DISCOUNTED, only(1, b)) for b in (batch, flipped))
    assert relative_error(ours, theirs) > 0.1


def test_in_stage_1_the_first_attempt_has_no_gradient_while_the_policy_is_the_reference():
    batch, settings = BATCH, fakes.learner_settings()
    logp_BT = jnp.zeros(batch.tokens.shape)
    where = step.likelihood.written(batch.attempt, 6)
    log_probs = jax.jit(step.likelihood.log_probs, static_argnums=3)
    logp_BN, _ = log_probs(fakes.params(), batch.tokens, where, settings.likelihood)
    row_B1 = jnp.arange(len(logp_BT))[:, None]
    batch = batch.replace(logp=logp_BT.at[row_B1, where.column].add(logp_BN))
    assert np.all(gradient(STAGE1, only(1, batch), fakes.params()) == 0.0)
    assert np.any(gradient(STAGE1, only(2, batch), fakes.params()) != 0.0)
    assert np.any(gradient(STAGE2, only(1, batch), fakes.params()) != 0.0)


@functools.partial(jax.jit, static_argnums=(2, 3))
def slow_loss(params, logp_BT, samples: int, stage: StageSettings):
    """The loss of BATCH row by row and token by token, from whole rows of logits; and its KL."""
    b = BATCH
    rows, attempts = b.reward.shape
    ours_BTV, reference_BTV = (
        jax.nn.log_softmax(transformer.logits(fakes.MODEL, p, b.tokens))
        for p in (params, fakes.params(seed=1))
    )
    beta = [stage.kl_attempt1, stage.kl_attempt2]
    loss, kl = 0.0, np.zeros((rows, attempts), object)
    for row, t in np.argwhere(b.attempt > 0):
        kl[row, b.attempt[row, t] - 1] += (
            logp_BT[row, t] - reference_BTV[row, t - 1, b.tokens[row, t]]
        )
    shaped = b.reward - beta * kl
    shaped[:, 1] += stage.bonus * (b.reward[:, 1] - b.reward[:, 0])
    for row, t in np.argwhere(b.attempt > 0):
        a, first = b.attempt[row, t] - 1, row - row % samples
        others = [shaped[j, a] for j in range(first, first + samples) if j != row]
        advantage = jax.lax.stop_gradient(shaped[row, a] - sum(others) / len(others))
        loss -= advantage * ours_BTV[row, t - 1, b.tokens[row, t]] / rows
    return loss, [sum(kl[:, a]) / rows for a in range(attempts)]


def test_loss_and_kl_cover_the_policys_tokens_and_their_end_tokens_only():
    # Behaviour log-probs that would be noticed if anything else were read.
    garbage = BATCH.replace(logp=np.where(BATCH.attempt > 0, BATCH.logp, np.nan))
    found, metrics = gradient_of(
        fakes.params(),
        fakes.params(seed=1),
        garbage,
        Coefficients.of(STAGE2),
        choices=Choices.of(STAGE2),
        settings=fakes.learner_settings(),
    )
    slow = jax.value_and_grad(slow_loss, has_aux=True)
    (loss, kl_A), theirs = slow(fakes.params(), BATCH.logp, 2, STAGE2)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert relative_error(flat(found), flat(theirs)) <= 1e-5
    for a in (1, 2):
        np.testing.assert_allclose(metrics[f"kl/attempt{a}"], kl_A[a - 1], rtol=1e-5)
        length = np.sum(BATCH.attempt == a) / len(BATCH.attempt)
        np.testing.assert_allclose(metrics[f"length/attempt{a}"], length, rtol=1e-6)
        np.testing.assert_allclose(
            metrics[f"reward/attempt{a}"], np.mean(BATCH.reward[:, a - 1]), rtol=1e-6
        )


# How an update is computed changes nothing

VARIANTS = [
    ("sequence", {"micro_batches": 2, "chunk": 1}, 1.0),
    ("token", {"micro_batches": 4, "remat": True}, np.sum(BATCH.attempt > 0) / len(BATCH.tokens)),
    ("constant", {"micro_batches": 2, "chunk": 5}, 3.0),
]


@pytest.mark.parametrize(("normalizer", "settings", "factor"), VARIANTS, ids=str)
def test_micro_batches_chunks_and_remat_change_nothing_and_normalizers_the_scale(
    normalizer, settings, factor
):
    stage = dataclasses.replace(STAGE2, normalizer=normalizer)
    found = gradient(stage, BATCH, **settings) * factor
    np.testing.assert_allclose(found, gradient(STAGE2, BATCH), rtol=1e-6, atol=1e-6)


def test_learning_from_documents_is_cross_entropy():
    stage = fakes.stage(baseline="none", normalizer="token")
    documents = BATCH.replace(logp=np.zeros_like(BATCH.logp), reward=np.ones_like(BATCH.reward))
    found = gradient(stage, documents, None, samples=1)

    @jax.jit
    @jax.grad
    def cross_entropy(params):
        logp_BTV = jax.nn.log_softmax(transformer.logits(fakes.MODEL, params, BATCH.tokens))
        row, t = np.nonzero(BATCH.attempt)
        return -jnp.mean(logp_BTV[row, t - 1, BATCH.tokens[row, t]])

    assert relative_error(found, flat(cross_entropy(fakes.params()))) <= 1e-5


# The update


def two_steps(first: StageSettings, second: StageSettings):
    """The state and metrics of both steps, fetched."""
    state = step.init(fakes.params(), fakes.learner_settings())
    reference, seen = fakes.params(seed=1), []
    for stage in (first, second):
        state, metrics = step.train_step(state, reference, BATCH, stage=stage)
        seen.append(jax.device_get((state, metrics)))
    return seen


@functools.cache
def plain_two_steps():
    return two_steps(STAGE1, STAGE2)


def test_an_update_is_adam_on_the_gradient_at_the_schedules_rate():
    stage = dataclasses.replace(STAGE1, schedule="linear", warmup_steps=4, learning_rate=0.02)
    (state, metrics), _ = two_steps(stage, stage)
    slope = gradient(stage, BATCH)
    norm = np.linalg.norm(slope)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], 0.02 / 4, rtol=1e-6)
    # Adam's first direction is the gradient's sign, but for epsilon.
    slope /= max(norm, 1.0)
    expected = flat(fakes.params()) - 0.02 / 4 * slope / (np.abs(slope) + 1e-8)
    sure = np.abs(slope) > 1e-5
    np.testing.assert_allclose(flat(state.params)[sure], expected[sure], rtol=1e-5, atol=1e-6)
    assert state.step == 1


def test_another_stage_compiles_nothing():
    plain_two_steps()
    compiled = step._train_step._cache_size()
    two_steps(STAGE2, dataclasses.replace(DISCOUNTED, schedule="cosine", warmup_steps=3, steps=7))
    assert step._train_step._cache_size() == compiled


def test_an_update_needs_no_jit():
    with jax.disable_jit():
        unjitted = two_steps(STAGE1, STAGE2)
    for ours, theirs in zip(unjitted, plain_two_steps(), strict=True):
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
