"""At equal weights the KL is 0 to the last bit, in bfloat16 too, however the sampler rounds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config.settings import LoraSettings
from score_jax.learner import lora, sampled_logprobs, step
from score_jax.learner.micro_batches import Split
from score_jax.learner.step import Choices, Coefficients
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

# Wide enough that bfloat16 sums round differently in different programs.
MODEL = fakes.model(layers=2, width=64, heads=4, kv_heads=2, head_width=16, mlp_width=96)
LORA = LoraSettings(rank=4, alpha=8.0)
STAGE1 = fakes.stage(reward_attempt1=0.0, kl_attempt1=0.5, kl_attempt2=0.05)
BATCH = fakes.batch(problems=4, max_attempt_tokens=24, config=MODEL)
ONLY_FIRST = BATCH.replace(attempt=np.where(BATCH.attempt == 1, 1, 0).astype(np.int32))


def settings(**changes):
    return fakes.learner_settings(MODEL, dtype="bfloat16", max_attempt_tokens=24, **changes)


def trained_adapters():
    fresh = lora.init(jax.random.key(1), MODEL, LORA)
    draw = np.random.default_rng(2)
    return jax.tree.map(lambda x: x + 0.1 * draw.normal(size=x.shape).astype(np.float32), fresh)


def equal_policies(name: str):
    """(policy, reference, base, LoRA's settings) of the same distribution."""
    if name == "whole weights":
        return fakes.params(MODEL), fakes.params(MODEL), None, LoraSettings()
    base = jax.tree.map(lambda x: x.astype(jnp.bfloat16), fakes.params(MODEL))
    if name == "fresh adapters and the base":
        return lora.init(jax.random.key(0), MODEL, LORA), {}, base, LORA
    return trained_adapters(), trained_adapters(), base, LORA


EQUAL = ["whole weights", "fresh adapters and the base", "equal adapters"]


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize(
    "split", [pytest.param(Split(), marks=pytest.mark.slow), Split(4, widths=2)], ids=str
)
def test_the_kl_in_bfloat16_is_exactly_0_while_the_policy_is_the_reference(name, split):
    policy, reference, base, adapters = equal_policies(name)
    state = step.init(policy, settings(lora=adapters, split=split))
    _, metrics = step.train_step(state, reference, BATCH, stage=STAGE1, base=base)
    assert metrics["kl/attempt1"] == 0.0 and metrics["kl/attempt2"] == 0.0
    assert metrics["logp_gap"] > 0.0  # which is still the sampler's


@pytest.mark.parametrize("name", EQUAL)
def test_stage_1_gives_attempt_1_no_gradient_there(name):
    policy, reference, base, adapters = equal_policies(name)
    s = settings(lora=adapters)

    def gradient(batch, stage):
        known = sampled_logprobs.of(policy, reference, batch, s, base=base)
        made = jax.jit(step.loss_gradient, static_argnames=("choices", "settings"))
        batch = batch.replace(logprobs=known)
        numbers, choices = Coefficients.of(stage), Choices.of(stage)
        return made(policy, batch, numbers, choices=choices, settings=s, base=base)[0]

    def moves(tree) -> bool:
        return any(bool(jnp.any(x != 0.0)) for x in jax.tree.leaves(tree))

    assert not moves(gradient(ONLY_FIRST, STAGE1))
    assert moves(gradient(BATCH, STAGE1))
    assert moves(gradient(ONLY_FIRST, dataclasses.replace(STAGE1, reward_attempt1=1.0)))


def test_another_reference_has_a_kl_of_its_own_and_the_metric_is_its_difference():
    policy, reference, s = fakes.params(MODEL), fakes.params(MODEL, seed=1), settings()
    known = sampled_logprobs.of(policy, reference, BATCH, s)
    _, metrics = step.train_step(step.init(policy, s), reference, BATCH, stage=STAGE1)
    found = metrics["kl/attempt1"] + metrics["kl/attempt2"]
    expected = float(jnp.sum(known.policy - known.reference)) / len(BATCH.tokens)
    assert abs(expected) > 1.0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_in_float32_the_sampler_s_log_probs_serve():
    s = dataclasses.replace(settings(), likelihood=fakes.learner_settings(MODEL).likelihood)
    params = fakes.params(MODEL)
    assert sampled_logprobs.of(params, params, BATCH, s).policy is None
    known = sampled_logprobs.of(params, params, BATCH, s)
    _, metrics = step.train_step(step.init(fakes.params(MODEL), s), params, BATCH, stage=STAGE1)
    mask_BN = np.asarray(known.reference) != 0.0
    sampled = float(np.sum(BATCH.logp[BATCH.attempt > 0]))
    expected = (sampled - float(np.sum(known.reference[mask_BN]))) / len(BATCH.tokens)
    found = metrics["kl/attempt1"] + metrics["kl/attempt2"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", EQUAL)
def test_policy_and_reference_run_one_compiled_program(name):
    policy, reference, base, adapters = equal_policies(name)
    s = settings(lora=adapters, chunk=11)  # which no other test compiles
    before = sampled_logprobs.compiled._cache_size()  # type: ignore[attr-defined]
    sampled_logprobs.of(policy, reference, BATCH, s, base=base)
    programs = sampled_logprobs.compiled._cache_size() - before  # type: ignore[attr-defined]
    assert programs == (1 if name != "equal adapters" else 0)  # the adapters before had its shapes
