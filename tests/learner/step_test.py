import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config.settings import StageSettings
from score_jax.learner import optimizer, sampled_logprobs, step
from score_jax.learner.loss import token_logprobs
from score_jax.learner.micro_batches import Split
from score_jax.learner.step import Choices, Coefficients
from score_jax.rl.policy import Policy
from score_jax.structs import Batch
from tests import fakes
from tests.learner import slow
from tests.learner.loss import exact

pytestmark = pytest.mark.usefixtures("quick_compile")

# Larger KL weights than a run would use, so that an error in a KL term is not a rounding error.
STAGE1 = fakes.stage(reward_attempt1=0.0, kl_attempt1=0.5, kl_attempt2=0.05)
STAGE2 = fakes.stage(bonus=10.0, kl_attempt1=0.1, kl_attempt2=0.2)
DISCOUNTED = fakes.stage(bonus=1.0, discount=0.8, kl_attempt1=0.1, kl_attempt2=0.2)
NO_KL: dict[str, Any] = {"kl_attempt1": 0.0, "kl_attempt2": 0.0}
BATCH = fakes.batch()
ROWS = len(BATCH.tokens)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def gradient(stage: StageSettings, batch, reference="another", **settings):
    """The step's gradient at fakes.params() as one vector, and its metrics."""
    found, metrics = fakes.loss_gradient(
        fakes.params(),
        fakes.params(seed=1) if reference == "another" else reference,
        batch,
        Coefficients.of(stage),
        choices=Choices.of(stage),
        settings=fakes.learner_settings(**settings),
    )
    return flat(found), metrics


def only(attempt: int, batch):
    """The batch with the tokens of one attempt only as the policy's own."""
    return batch.replace(attempt=np.where(batch.attempt == attempt, attempt, 0).astype(np.int32))


def flip_second_reward(batch):
    return batch.replace(reward=np.stack([batch.reward[:, 0], 1.0 - batch.reward[:, 1]], axis=1))


def test_a_true_verdict_has_its_own_reward_at_any_bonus_and_discount():
    true_BA = np.stack([np.zeros(ROWS), np.arange(ROWS) % 2], axis=1).astype(np.float32)
    wrong = BATCH.replace(reward=np.zeros((ROWS, 2), np.float32))
    stage = fakes.stage(bonus=10.0, discount=0.8, verdict=0.5, **NO_KL)
    found, metrics = gradient(stage, wrong.replace(true_verdict=true_BA))
    expected, _ = gradient(fakes.stage(**NO_KL), wrong.replace(reward=0.5 * true_BA))
    assert np.any(expected)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert metrics["reward/attempt2"] == 0.0  # which counts only answers


# Exact expectations, over every episode there can be


@functools.partial(jax.jit, static_argnames=("choices", "settings"))
def _gradients(params, reference, batches, coefficients, *, choices, settings):
    def one(batch):
        return fakes.loss_gradient(
            params, reference, batch, coefficients, choices=choices, settings=settings
        )[0]

    return jax.vmap(one)(batches)


@functools.cache
def exact_params(seed: int):
    return fakes.params(exact.CONFIG, seed)


@functools.cache
def exact_episodes():
    batch, probability_B = jax.device_get(exact.episodes(exact_params(0)))
    return batch, probability_B.astype(np.float64)


def expected_gradient(stage: StageSettings, *, samples: int = 2, attempt: int = 0) -> np.ndarray:
    """E of the step's gradient over independent samples of one problem: all groups, weighed.

    With `attempt`, of that attempt's tokens only.
    """
    episodes, probability_B = exact_episodes()
    if attempt:
        episodes = only(attempt, episodes)
    groups = np.array([*itertools.product(range(len(probability_B)), repeat=samples)])
    found = _gradients(
        exact_params(0),
        exact_params(1),
        jax.tree.map(lambda x: x[groups], episodes),
        Coefficients.of(stage),
        choices=Choices.of(stage),
        settings=fakes.learner_settings(
            exact.CONFIG,
            policy=Policy(exact.TEMPERATURE),
            samples=samples,
            max_attempt_tokens=exact.MAX_TOKENS,
        ),
    )
    weight = np.prod(probability_B[groups], axis=1)
    return flat(jax.tree.map(lambda x: np.tensordot(weight, np.asarray(x, np.float64), 1), found))


def exact_gradient(
    stage: StageSettings,
    kl_stage: StageSettings = fakes.stage(**NO_KL),  # noqa: B008 (frozen)
    *,
    forward: bool = False,
    train=(1.0, 1.0),
) -> np.ndarray:
    """Of the exact objective, and of a KL at every token in `kl_stage`."""
    stages = (Coefficients.of(stage), Coefficients.of(kl_stage))
    params = (exact_params(0), exact_params(1))
    return flat(exact.loss_gradient(*params, *stages, float(forward), train))


def test_every_episode_is_written_out_once():
    episodes, probability_B = exact_episodes()
    assert len(np.unique(episodes.tokens + 10 * episodes.attempt, axis=0)) == 49
    np.testing.assert_allclose(np.sum(probability_B), 1.0, rtol=1e-6)


@pytest.mark.parametrize("stage", [STAGE1, STAGE2, DISCOUNTED], ids=["1", "2", "discounted"])
def test_the_expected_gradient_is_that_of_the_exact_objective(stage):
    assert relative_error(expected_gradient(stage), exact_gradient(stage)) <= 1e-5


@pytest.mark.parametrize(("attempt", "train"), [(1, (1.0, 0.0)), (2, (0.0, 1.0))])
def test_each_attempt_is_trained_by_its_own_part_of_the_objective(attempt, train):
    found = expected_gradient(STAGE2, attempt=attempt)
    assert relative_error(found, exact_gradient(STAGE2, train=train)) <= 1e-5


def test_at_discount_0_the_bonus_multiplies_what_trains_attempt_2():
    found, plain = (
        expected_gradient(fakes.stage(bonus=bonus, **NO_KL), attempt=2) for bonus in (10.0, 0.0)
    )
    assert relative_error(found, 11.0 * plain) <= 1e-5


@pytest.mark.parametrize("name", ["k2", "k3", "exact"])
def test_a_kl_loss_adds_its_divergences_gradient_at_every_token(name):
    stage = dataclasses.replace(STAGE2, bonus=1.0, baseline="none", kl_estimator=name)
    theirs = exact_gradient(dataclasses.replace(stage, **NO_KL), stage, forward=name == "k3")
    assert relative_error(expected_gradient(stage, samples=1), theirs) <= 1e-5


# What the gradient of one batch depends on


@pytest.mark.parametrize("stage", [STAGE1, STAGE2], ids=["1", "2"])
def test_the_second_reward_never_moves_the_gradient_of_the_first_attempt(stage):
    flipped = flip_second_reward(BATCH)
    first, first_flipped = (gradient(stage, only(1, b))[0] for b in (BATCH, flipped))
    second, second_flipped = (gradient(stage, only(2, b))[0] for b in (BATCH, flipped))
    assert np.linalg.norm(first) > 0.0
    np.testing.assert_array_equal(first_flipped, first)
    assert relative_error(second_flipped, second) > 0.1
    # The two attempts' gradients are the whole of it.
    assert relative_error(first + second, gradient(stage, BATCH)[0]) <= 1e-5


def test_with_a_discount_the_second_reward_trains_the_first_attempt():
    found, flipped = (
        gradient(DISCOUNTED, only(1, b))[0] for b in (BATCH, flip_second_reward(BATCH))
    )
    assert relative_error(flipped, found) > 0.1


def test_in_stage_1_the_first_attempt_has_no_gradient_while_the_policy_is_the_reference():
    policy = fakes.params()
    where = token_logprobs.written(BATCH.attempt, 6)
    # The log-probs as `gradient` rounds them: compiled by jax.jit as it is, without options. A
    # sampler's differ in the last digit.
    of = jax.jit(functools.partial(sampled_logprobs.of, settings=fakes.learner_settings()))
    logp_BN = of(policy, policy, BATCH).reference
    logp_BT = np.zeros_like(BATCH.logp)
    for row, column_N in enumerate(where.column):
        logp_BT[row, column_N[where.mask[row]]] = logp_BN[row][where.mask[row]]
    batch = BATCH.replace(logp=logp_BT)
    assert np.all(gradient(STAGE1, only(1, batch), policy)[0] == 0.0)
    assert np.any(gradient(STAGE1, only(2, batch), policy)[0] != 0.0)
    assert np.any(gradient(STAGE2, only(1, batch), policy)[0] != 0.0)


@pytest.mark.parametrize("standardize", [False, True])
def test_of_masked_truncated_attempts_the_kl_alone_is_learned_and_of_others_the_same_as_before(
    standardize,
):
    cut = BATCH.replace(truncated=np.tile([False, True], (ROWS, 1)))
    stage = dataclasses.replace(STAGE2, truncation="mask", bonus=0.0, standardize=standardize)
    plain = dataclasses.replace(stage, truncation="zero")
    found, of_kl = gradient(stage, only(2, cut))[0], flat_of_kl(plain, only(2, cut))
    assert np.linalg.norm(of_kl) > 0.01
    if not standardize:  # which divides by the deviation of reward and KL together
        np.testing.assert_allclose(found, of_kl, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(found) > 0.01
    first = gradient(plain, only(1, cut))[0]
    np.testing.assert_allclose(gradient(stage, cut)[0], first + found, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient(plain, cut)[0], gradient(plain, BATCH)[0])
    no_kl = dataclasses.replace(stage, **NO_KL)
    assert np.all(gradient(no_kl, only(2, cut))[0] == 0.0)


def flat_of_kl(stage: StageSettings, batch):
    """The gradient where all attempts earn the same: that of the KL alone."""
    return gradient(stage, batch.replace(reward=np.ones_like(batch.reward)))[0]


def test_with_all_attempts_cut_off_and_masked_the_anchor_holds_as_before():
    cut = BATCH.replace(truncated=np.ones_like(BATCH.truncated))
    stage = dataclasses.replace(STAGE1, truncation="mask")
    found = gradient(stage, cut)[0]
    np.testing.assert_allclose(found, flat_of_kl(STAGE1, BATCH), rtol=1e-4, atol=1e-6)


def test_metrics_of_attempt_1_are_of_the_attempts_that_the_policy_wrote():
    attempt_BT = BATCH.attempt.copy()
    attempt_BT[2:][attempt_BT[2:] == 1] = 0  # the second problem's first attempts were given
    given = BATCH.replace(attempt=attempt_BT, given=np.array([False, False, True, True]))
    _, metrics = gradient(STAGE2, given)
    _, own = gradient(STAGE2, jax.tree.map(lambda x: x[:2], BATCH))
    for key in ("reward", "kl", "entropy", "length", "truncated", "mixed", "advantage"):
        np.testing.assert_allclose(
            metrics[f"{key}/attempt1"], own[f"{key}/attempt1"], rtol=1e-5, err_msg=key
        )
    _, every = gradient(STAGE2, BATCH)
    for key in ("reward", "kl", "length"):
        np.testing.assert_allclose(metrics[f"{key}/attempt2"], every[f"{key}/attempt2"], rtol=1e-5)
    attempt_BT = np.where(BATCH.attempt == 1, 0, BATCH.attempt)
    _, none = gradient(STAGE2, BATCH.replace(attempt=attempt_BT, given=np.ones(ROWS, bool)))
    assert all(np.isnan(v) for k, v in none.items() if k.endswith("/attempt1"))
    assert all(np.isfinite(v).all() for k, v in none.items() if not k.endswith("/attempt1"))


@pytest.mark.parametrize("bad", ["reward", "logp"])
def test_a_step_that_is_not_finite_is_not_taken(bad):
    values = getattr(BATCH, bad).copy()
    values[BATCH.attempt > 0 if bad == "logp" else ...] = np.inf
    batch = BATCH.replace(**{bad: values})
    settings = fakes.learner_settings()
    before = fakes.params()
    state, _ = step.train_step(
        step.init(fakes.params(), settings), fakes.params(seed=1), BATCH, stage=STAGE2
    )
    taken = jax.device_get((state.params, state.opt_state))
    assert np.any(flat(taken[0]) != flat(before))
    state, metrics = step.train_step(state, fakes.params(seed=1), batch, stage=STAGE2)
    assert not np.isfinite(metrics["loss"])
    jax.tree.map(
        np.testing.assert_array_equal, taken, jax.device_get((state.params, state.opt_state))
    )
    assert int(state.step) == 2


def test_the_overlong_penalty_lowers_the_reward_of_the_longer_attempts():
    stage = dataclasses.replace(
        fakes.stage(**NO_KL, truncation="penalty", overlong_tokens=2), baseline="none"
    )
    length_BA = np.stack([np.sum(BATCH.attempt == a, axis=1) for a in (1, 2)], axis=1)
    lost_BA = np.clip((length_BA - 1) / 2, 0, 1).astype(np.float32)
    assert len(np.unique(lost_BA)) > 1
    plain = dataclasses.replace(stage, truncation="zero", overlong_tokens=0)
    theirs = gradient(plain, BATCH.replace(reward=BATCH.reward - lost_BA))[0]
    np.testing.assert_allclose(gradient(stage, BATCH)[0], theirs, rtol=1e-5, atol=1e-7)


def test_siblings_learn_against_each_other():
    rows = fakes.batch(problems=1, samples=4)
    stage = fakes.stage(**NO_KL, baseline="sibling")
    found = gradient(stage, rows, samples=4, siblings=2)[0]
    reward_GA = rows.reward.reshape(4, 2)
    by_hand = np.stack(
        [
            (reward_GA[:2, 0].mean() - reward_GA[2:, 0].mean()) * np.array([1, 1, -1, -1]),
            (reward_GA[:, 1] - reward_GA[[1, 0, 3, 2], 1]),
        ],
        axis=1,
    )
    plain = dataclasses.replace(stage, baseline="none")
    theirs = gradient(plain, rows.replace(reward=by_hand.astype(np.float32)), samples=4)[0]
    np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-7)


def written(batch=BATCH):
    """(row, column, attempt - 1) of every token of the batch that the policy wrote."""
    return [(row, t, batch.attempt[row, t] - 1) for row, t in np.argwhere(batch.attempt)]


def slow_gradient(stage: StageSettings, batch=BATCH, config=fakes.MODEL, samples: int = 2):
    """Loss, gradient and KL of a batch, token by token, with all logits at once."""
    log_probs = functools.partial(slow.log_probs, config=config)
    params, reference = fakes.params(config), fakes.params(config, seed=1)
    no_weight_BT = np.zeros_like(batch.logp)
    ours_BT, _, _ = log_probs(params, batch.tokens, no_weight_BT)
    reference_BT, _, _ = log_probs(reference, batch.tokens, no_weight_BT)
    kl_BA = np.zeros_like(batch.reward)
    for row, t, a in written(batch):
        kl_BA[row, a] += batch.logp[row, t] - reference_BT[row, t]
    shaped_BA = batch.reward - np.array([stage.kl_attempt1, stage.kl_attempt2]) * kl_BA
    shaped_BA[:, 1] += stage.bonus * (batch.reward[:, 1] - batch.reward[:, 0])
    weight_BT = no_weight_BT.copy()
    for row, t, a in written(batch):
        first = row - row % samples
        others = [shaped_BA[j, a] for j in range(first, first + samples) if j != row]
        weight_BT[row, t] = -(shaped_BA[row, a] - np.mean(others)) / len(batch.tokens)
    _, _, found = log_probs(params, batch.tokens, weight_BT)
    return np.sum(weight_BT * ours_BT), flat(found), np.mean(kl_BA, axis=0)


def test_loss_and_kl_cover_the_policys_tokens_and_their_end_tokens_only():
    # Garbage wherever the policy wrote nothing: reading any of it would change the result.
    column_T = np.arange(BATCH.tokens.shape[1])
    garbage = BATCH.replace(
        logp=np.where(BATCH.attempt > 0, BATCH.logp, np.nan).astype(np.float32),
        tokens=np.where(column_T < BATCH.length[:, None], BATCH.tokens, 3).astype(np.int32),
    )
    found, metrics = gradient(STAGE2, garbage)
    loss, theirs, kl_A = slow_gradient(STAGE2)
    assert relative_error(found, theirs) <= 1e-5
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl/attempt1"], kl_A[0], atol=1e-5)
    np.testing.assert_allclose(metrics["kl/attempt2"], kl_A[1], atol=1e-5)


def test_metrics_describe_the_policys_tokens():
    truncated_BA = np.array([[1, 0], [0, 0], [1, 0], [1, 1]], bool)
    _, metrics = gradient(STAGE2, BATCH.replace(truncated=truncated_BA))
    found = slow.log_probs(fakes.params(), BATCH.tokens, np.zeros_like(BATCH.logp))
    logp_BT, next_BTV = np.asarray(found[0]), np.asarray(found[1])
    gap = max(abs(logp_BT[row, t] - BATCH.logp[row, t]) for row, t, _ in written())
    np.testing.assert_allclose(metrics["logp_gap"], gap, rtol=1e-5)
    for attempt in (1, 2):
        before_NV = [next_BTV[row, t - 1] for row, t, a in written() if a == attempt - 1]
        expected = {
            "entropy": np.mean([-np.sum(np.exp(logp_V) * logp_V) for logp_V in before_NV]),
            "length": len(before_NV) / ROWS,
            "reward": np.mean(BATCH.reward[:, attempt - 1]),
            "truncated": {1: 0.75, 2: 0.25}[attempt],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[f"{name}/attempt{attempt}"], value, rtol=1e-5)


def test_importance_weights_are_the_ratio_to_the_sampler_up_to_their_cap():
    stage = dataclasses.replace(STAGE2, **NO_KL)
    where = token_logprobs.written(BATCH.attempt, 6)
    params, settings = fakes.params(), fakes.learner_settings()
    logp_BN = sampled_logprobs.of(params, params, BATCH, settings).reference
    logp_BT = np.zeros_like(BATCH.logp)
    for row, column_N in enumerate(where.column):
        logp_BT[row, column_N[where.mask[row]]] = logp_BN[row][where.mask[row]]
    plain = gradient(stage, BATCH)[0]
    for factor, weight in ((2.0, 0.5), (0.8, 1.25), (0.1, 1.5)):
        sampled = BATCH.replace(logp=logp_BT + np.log(np.float32(factor)))
        found = gradient(dataclasses.replace(stage, importance_cap=1.5), sampled)[0]
        assert relative_error(found, weight * plain) <= 1e-5


# How an update is computed changes nothing

LONG = fakes.batch(problems=4, max_attempt_tokens=12, seed=3)  # rows of one or two steps of width
SPLITS = [Split(), Split(2), Split(4), Split(2, widths=2), Split(4, widths=2), Split(1, widths=2)]
REMATS = ["none", "products", "full"]


def assert_gradient_is_the_naive_forms(family: str, split: Split, remat: str):
    model = fakes.model_of_family(family)
    found, metrics = fakes.loss_gradient(
        fakes.params(model),
        fakes.params(model, seed=1),
        LONG,
        Coefficients.of(STAGE2),
        choices=Choices.of(STAGE2),
        settings=fakes.learner_settings(model, split=split, remat=remat, max_attempt_tokens=12),
    )
    loss, theirs, kl_A = slow_gradient(STAGE2, LONG, model)
    assert relative_error(flat(found), theirs) <= 1e-5
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["kl/attempt2"], kl_A[1], rtol=1e-4)


def test_parts_of_the_long_batch_have_more_than_one_width():
    assert Split(widths=2).columns(LONG.tokens.shape[1]) == (16, 29)
    assert np.sum(LONG.length <= 16) == np.sum(LONG.length > 16) == 4


@pytest.mark.parametrize(
    ("family", "split", "remat"),
    [
        pytest.param(family, SPLITS[i % 6], REMATS[i % 3], marks=[pytest.mark.slow] * (i % 2))
        for i, family in enumerate(fakes.OF_FAMILY)
    ],
    ids=str,
)
def test_the_gradient_of_every_family_is_the_naive_forms(family, split, remat):
    assert_gradient_is_the_naive_forms(family, split, remat)


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMATS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("family", fakes.OF_FAMILY)
def test_the_gradient_is_the_naive_forms_in_every_combination(family, split, remat):
    assert_gradient_is_the_naive_forms(family, split, remat)


@pytest.mark.parametrize(
    ("normalizer", "factor", "settings"),
    [
        ("sequence", 1.0, {"split": Split(2), "remat": "full"}),
        ("token", len(written()) / ROWS, {"split": Split(4), "remat": "none"}),
        ("constant", 3.0, {"split": Split(4), "chunk": 5}),
    ],
)
def test_micro_batches_chunks_and_remat_change_nothing_and_normalizers_the_scale(
    normalizer, factor, settings
):
    stage = dataclasses.replace(STAGE2, normalizer=normalizer)
    found = gradient(stage, BATCH, **settings)[0] * factor
    assert relative_error(found, gradient(STAGE2, BATCH)[0]) <= 1e-6


def test_learning_from_documents_is_cross_entropy():
    stage = fakes.stage(baseline="none", normalizer="token")
    documents = BATCH.replace(logp=np.zeros_like(BATCH.logp), reward=np.ones_like(BATCH.reward))
    found, metrics = gradient(stage, documents, None, samples=1)
    weight_BT = (BATCH.attempt > 0) / np.float32(len(written()))
    logp_BT, _, theirs = slow.log_probs(fakes.params(), BATCH.tokens, -weight_BT)
    assert relative_error(found, flat(theirs)) <= 1e-5
    np.testing.assert_allclose(metrics["loss"], -np.sum(weight_BT * logp_BT), rtol=1e-5)


# The update


def two_steps(first: StageSettings, second: StageSettings):
    """(state, metrics) of both steps, fetched."""
    state = step.init(fakes.params(), fakes.learner_settings())
    reference, seen = fakes.params(seed=1), []
    for stage in (first, second):
        state, metrics = step.train_step(state, reference, BATCH, stage=stage)
        seen.append(jax.device_get((state, metrics)))
    return seen


def test_an_update_is_adam_on_the_gradient_at_the_schedules_rate():
    stage = dataclasses.replace(STAGE1, schedule="linear", warmup_steps=4, learning_rate=0.02)
    (state, metrics), _ = two_steps(stage, stage)
    slope, _ = gradient(stage, BATCH)
    norm = np.linalg.norm(slope)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["learning_rate"], 0.02 / 4, rtol=1e-6)
    slope /= max(norm, 1.0)
    # Adam's first direction is the gradient's sign, but for epsilon.
    moved = flat(state.params) - flat(fakes.params())
    large = np.abs(slope) > 1e-5
    assert np.mean(large) > 0.8
    np.testing.assert_allclose(moved[large], -0.005 * np.sign(slope[large]), rtol=2e-3)
    assert state.step == 1
    # Norms by group are of the gradient before clipping, and of what the params moved by.
    moves = jax.tree.map(np.subtract, state.params, jax.device_get(fakes.params()))
    for name, tree in (("param_norm", state.params), ("update_norm", moves)):
        for key, norm in optimizer.norms(name, tree).items():
            np.testing.assert_allclose(metrics[key], norm, rtol=1e-4)
    groups = [value for key, value in metrics.items() if key.startswith("grad_norm/")]
    np.testing.assert_allclose(np.linalg.norm(groups), metrics["grad_norm"], rtol=1e-6)


def programs() -> int:
    """How many times a train step was compiled so far."""
    return step._train_step._cache_size()  # type: ignore[attr-defined]


def test_another_step_or_stage_compiles_nothing():
    stage = dataclasses.replace(STAGE1, schedule="linear")
    two_steps(stage, stage)
    compiled = programs()
    every_number_differs: dict[str, Any] = {
        "schedule": "cosine",
        "warmup_steps": 3,
        "steps": 7,
        "learning_rate": 0.5,
        "final_fraction": 0.1,
        "reward_attempt2": 2.0,
    }
    two_steps(stage, dataclasses.replace(DISCOUNTED, **every_number_differs))
    assert programs() == compiled


@pytest.mark.slow
def test_an_update_needs_no_jit():
    jitted = two_steps(STAGE1, STAGE2)
    with jax.disable_jit():
        unjitted = two_steps(STAGE1, STAGE2)
    for ours, theirs in zip(unjitted, jitted, strict=True):
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


# Memory


def temporary_bytes(vocab_size: int, chunk: int = 0) -> int:
    """Of a compiled update of 8 rows of 128 tokens, all but one written by the policy."""
    model = fakes.model(vocab_size=vocab_size, layers=2)
    settings = fakes.learner_settings(model, chunk=chunk, max_attempt_tokens=64)
    params = jax.eval_shape(lambda: fakes.params(model))
    state = jax.eval_shape(lambda params: step.init(params, settings), params)
    of = jax.ShapeDtypeStruct
    batch = Batch(
        tokens=of((8, 128), jnp.int32),
        attempt=of((8, 128), jnp.int32),
        logp=of((8, 128), jnp.float32),
        length=of((8,), jnp.int32),
        reward=of((8, 2), jnp.float32),
        truncated=of((8, 2), bool),
    )
    compiled = step.lower(state, params, batch, stage=STAGE2).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def test_memory_does_not_grow_with_tokens_times_vocabulary():
    small, large = 2**14, 2**15
    grown = temporary_bytes(large) - temporary_bytes(small)
    # The head, its gradient, and a chunk's logits, which are as many for every vocabulary.
    head_bytes = 4 * fakes.model().width * (large - small)
    assert grown < 6 * head_bytes
    logits_bytes = 4 * 8 * 127 * (large - small)
    assert grown < logits_bytes / 4
    # What the chunks are for: all tokens at once hold their logits.
    assert temporary_bytes(large, chunk=8 * 128) > 4 * 8 * 127 * large


# Compile time


def test_the_program_of_many_layers_is_no_larger_than_that_of_few():
    def instructions(layers: int) -> int:
        model = fakes.model(layers=layers)
        params = jax.eval_shape(lambda: fakes.params(model))
        settings = fakes.learner_settings(model)
        state = jax.eval_shape(lambda params: step.init(params, settings), params)
        return step.lower(state, params, BATCH, stage=STAGE2).as_text().count("\n")

    assert instructions(32) <= 1.01 * instructions(4)


def test_a_step_whose_samples_earn_the_same_moves_nothing_if_it_is_to_be_skipped():
    # Rewards differ between problems, and between attempts, but not between samples.
    even_BA = np.repeat(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), 2, axis=0)
    even = BATCH.replace(reward=even_BA)
    skipping = dataclasses.replace(STAGE2, skip_unmixed=True)

    def moved(stage: StageSettings, batch: Batch) -> tuple[bool, int, dict]:
        state = step.init(fakes.params(), fakes.learner_settings())
        before = [flat(state.params), flat(state.opt_state)]
        state, metrics = step.train_step(state, fakes.params(seed=1), batch, stage=stage)
        after = [flat(state.params), flat(state.opt_state)]
        same = all(np.array_equal(*both) for both in zip(before, after, strict=True))
        return not same, int(state.step), jax.device_get(metrics)

    changed, steps, metrics = moved(skipping, even)
    assert not changed and steps == 0 and metrics["skipped_unmixed"] == 1.0
    assert metrics["grad_norm"] > 0.01  # of the KL alone
    changed, steps, metrics = moved(skipping, BATCH)
    assert changed and steps == 1 and metrics["skipped_unmixed"] == 0.0
    changed, _, metrics = moved(STAGE2, even)
    assert changed and "skipped_unmixed" not in metrics
