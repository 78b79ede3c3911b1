import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config import OptimizerSettings, StageSettings
from score_jax.learner import optimizer, step
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
    stage: StageSettings, *, samples: int, temperature: float = 1.0, attempt: int | None = None
) -> np.ndarray:
    """E of the step's gradient over independent samples of one problem, all groups summed up."""
    params, reference = exact_params(0), exact_params(1)
    episodes, probability = jax.device_get(exact.episodes(params, temperature))
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
            policy=Policy(temperature),
            samples=samples,
            max_attempt_tokens=exact.MAX_TOKENS,
        ),
    )
    weight = np.prod(probability.astype(np.float64)[groups], axis=1)
    return flat(jax.tree.map(lambda x: np.tensordot(weight, np.asarray(x, np.float64), 1), found))


_exact = jax.jit(jax.grad(exact.objective))


def exact_gradient(stage: StageSettings, *, temperature: float = 1.0, train=(1, 1)) -> np.ndarray:
    """Of what is minimised."""
    found = _exact(
        exact_params(0), exact_params(1), Coefficients.of(stage), temperature, np.array(train, float)
    )
    return -flat(found)


def test_every_episode_is_written_out_once():
    assert len(np.unique(exact.TOKENS_BT + 10 * exact.ATTEMPT_BT, axis=0)) == 49
    np.testing.assert_allclose(exact.episodes(exact_params(0))[1].sum(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("stage", [STAGE1, STAGE2, DISCOUNTED], ids=["1", "2", "discounted"])
def test_the_expected_gradient_is_that_of_the_exact_objective(stage):
    found = expected_gradient(stage, samples=2)
    assert relative_error(found, exact_gradient(stage)) <= 1e-5


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_attempt_is_trained_by_its_own_part_of_the_objective(attempt):
    found = expected_gradient(STAGE2, samples=2, attempt=attempt)
    assert relative_error(found, exact_gradient(STAGE2, train=np.eye(2)[attempt - 1])) <= 1e-5


def test_the_expected_gradient_is_exact_without_a_baseline_and_at_another_temperature():
    stage = fakes.stage(bonus=2.0, discount=0.5, baseline="none", kl_attempt1=0.1, kl_attempt2=0.2)
    found = expected_gradient(stage, samples=1, temperature=0.7)
    assert relative_error(found, exact_gradient(stage, temperature=0.7)) <= 1e-5


def test_at_discount_0_the_bonus_multiplies_what_trains_attempt_2():
    bonus, plain = fakes.stage(bonus=10.0, **NO_KL), fakes.stage(bonus=0.0, **NO_KL)
    found = expected_gradient(bonus, samples=2, attempt=2)
    assert relative_error(found, 11.0 * expected_gradient(plain, samples=2, attempt=2)) <= 1e-5


_exact_kl = jax.jit(jax.grad(exact.kl_by_tokens))


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_a_kl_loss_has_its_divergences_gradient_at_every_token(name):
    stage = fakes.stage(
        reward_attempt1=0.0,
        reward_attempt2=0.0,
        baseline="none",
        kl_estimator=name,
        kl_attempt1=0.3,
        kl_attempt2=0.7,
    )
    theirs = _exact_kl(exact_params(0), exact_params(1), Coefficients.of(stage), float(name == "k3"))
    assert relative_error(expected_gradient(stage, samples=1), flat(theirs)) <= 1e-5


# What a single batch's gradient depends on


@pytest.mark.parametrize("stage", [STAGE1, STAGE2], ids=["1", "2"])
def test_the_second_reward_never_moves_the_gradient_of_the_first_attempt(stage):
    batch = fakes.batch()
    flipped = flip_second_reward(batch)
    ours, theirs = (gradient(stage, only(1, b)) for b in (batch, flipped))
    assert np.linalg.norm(ours) > 0.0
    np.testing.assert_array_equal(ours, theirs)
    assert relative_error(gradient(stage, only(2, batch)), gradient(stage, only(2, flipped))) > 0.1
    # The two attempts' gradients are the whole of it.
    np.testing.assert_allclose(ours + gradient(stage, only(2, batch)), gradient(stage, batch), atol=1e-5)


def test_with_a_discount_the_second_reward_trains_the_first_attempt():
    batch = fakes.batch()
    flipped = flip_second_reward(batch)
    ours, theirs = (gradient(DISCOUNTED, only(1, b)) for b in (batch, flipped))
    assert relative_error(ours, theirs) > 0.1


def test_in_stage_1_the_first_attempt_has_no_gradient_while_the_policy_is_the_reference():
    batch, settings = fakes.batch(), fakes.learner_settings()
    logp_BT = jnp.zeros(batch.tokens.shape)
    where = step.likelihood.written(batch.attempt, 6)
    log_probs = jax.jit(step.likelihood.log_probs, static_argnums=3)
    logp_BN, _ = log_probs(fakes.params(), batch.tokens, where, settings.likelihood)
    row_B1 = jnp.arange(len(logp_BT))[:, None]
    batch = batch.replace(logp=logp_BT.at[row_B1, where.column].add(logp_BN))
    assert np.all(gradient(STAGE1, only(1, batch), fakes.params()) == 0.0)
    assert np.any(gradient(STAGE1, only(2, batch), fakes.params()) != 0.0)
    assert np.any(gradient(STAGE2, only(1, batch), fakes.params()) != 0.0)


def slow_loss(params, reference, batch, stage, samples: int):
    """The loss row by row and token by token, from whole rows of logits."""
    rows, attempts = batch.reward.shape
    logp_BT, ref_BT = (
        jnp.stack(
            [
                jax.nn.log_softmax(logits_TV)[jnp.arange(-1, tokens_T.size - 1), tokens_T]
                for logits_TV, tokens_T in zip(
                    transformer.logits(fakes.MODEL, p, batch.tokens), batch.tokens, strict=True
                )
            ]
        )
        for p in (params, reference)
    )
    beta = [stage.kl_attempt1, stage.kl_attempt2]
    own = np.zeros((rows, attempts))
    kl = np.zeros((rows, attempts))
    for b, a in itertools.product(range(rows), range(attempts)):
        for t in np.flatnonzero(batch.attempt[b] == a + 1):
            kl[b, a] += batch.logp[b, t] - ref_BT[b, t]
        bonus = stage.bonus * (batch.reward[b, 1] - batch.reward[b, 0]) if a == 1 else 0.0
        own[b, a] = batch.reward[b, a] + bonus - beta[a] * kl[b, a]
    loss = 0.0
    for b, t in np.argwhere(batch.attempt > 0):
        a, first = batch.attempt[b, t] - 1, b - b % samples
        others = [own[j, a] for j in range(first, first + samples) if j != b]
        loss -= (own[b, a] - np.mean(others)) * logp_BT[b, t] / rows
    return loss, kl


def test_loss_and_kl_cover_the_policys_tokens_and_their_end_tokens_only():
    batch = fakes.batch(samples=3)
    params, reference = fakes.params(), fakes.params(seed=1)
    settings = fakes.learner_settings(samples=3)
    found, metrics = gradient_of(
        params,
        reference,
        batch,
        Coefficients.of(STAGE2),
        choices=Choices.of(STAGE2),
        settings=settings,
    )
    with jax.disable_jit():
        _, kl_BA = slow_loss(params, reference, batch, STAGE2, 3)
    slow = jax.value_and_grad(lambda p: slow_loss(p, reference, batch, STAGE2, 3)[0])
    loss, theirs = slow(params)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert relative_error(flat(found), flat(theirs)) <= 1e-5
    written = np.asarray(batch.attempt)
    for a in (1, 2):
        np.testing.assert_allclose(metrics[f"kl/attempt{a}"], kl_BA[:, a - 1].mean(), rtol=1e-5)
        length = np.sum(written == a) / len(written)
        np.testing.assert_allclose(metrics[f"length/attempt{a}"], length, rtol=1e-6)
