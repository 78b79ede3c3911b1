"""Adapters: what is trained, what is frozen, and that all forms compute the same."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from score_jax.config.settings import LoraSettings
from score_jax.learner import lora, step
from score_jax.learner.micro_batches import Split
from score_jax.learner.step import Choices, Coefficients
from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.problem import InputError
from score_jax.runtime import sharding
from score_jax.structs import Params
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

SETTINGS = LoraSettings(rank=2, alpha=6.0)
MODEL = fakes.model(layers=2)
BATCH = fakes.batch()
STAGE = fakes.stage(bonus=10.0, kl_attempt1=0.1, kl_attempt2=0.2)
SHAPES = {
    "query": ((2, 16, 2), (2, 2, 2, 8)),
    "key": ((2, 16, 2), (2, 2, 1, 8)),
    "value": ((2, 16, 2), (2, 2, 1, 8)),
    "output": ((2, 2, 8, 2), (2, 2, 16)),
    "gate": ((2, 16, 2), (2, 2, 16)),
    "up": ((2, 16, 2), (2, 2, 16)),
    "down": ((2, 16, 2), (2, 2, 16)),
}

_logits = jax.jit(transformer.logits, static_argnums=0)


@functools.cache
def base() -> Params:
    return fakes.params(MODEL)


def adapters(seed: int = 0) -> Params:
    """Adapters that change the model much; new arrays at every call."""
    draw = np.random.default_rng(seed)
    return {
        name: {
            "down": jnp.asarray(0.3 * draw.normal(size=down), jnp.float32),
            "up": jnp.asarray(0.3 * draw.normal(size=up), jnp.float32),
        }
        for name, (down, up) in SHAPES.items()
    }


def learner(lora: LoraSettings = SETTINGS, **changes):
    return fakes.learner_settings(MODEL, lora=lora, **changes)


def gradient(params, reference, base=None, **settings):
    return fakes.loss_gradient(
        params,
        reference,
        BATCH,
        Coefficients.of(STAGE),
        choices=Choices.of(STAGE),
        settings=learner(**settings),
        base=base,
    )


def assert_equal(a, b, rtol: float = 0.0, atol: float = 0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def test_fresh_adapters_have_the_shapes_of_their_weights_and_change_nothing():
    fresh = lora.init(jax.random.key(0), MODEL, SETTINGS)
    shapes = {name: (f["down"].shape, f["up"].shape) for name, f in fresh.items()}
    assert shapes == SHAPES
    for name, factors in fresh.items():
        bound = 1 / math.sqrt(math.prod(factors["down"].shape[1:-1]))
        assert 0.8 * bound < np.max(np.abs(factors["down"])) <= bound, name
        assert len(np.unique(factors["down"])) == factors["down"].size
        assert not np.any(factors["up"])
    plain = _logits(MODEL, base(), BATCH.tokens)
    applied = _logits(MODEL, lora.attach(base(), fresh, SETTINGS), BATCH.tokens)
    np.testing.assert_array_equal(applied, plain)


def test_merged_equals_applied_and_decoding_merges():
    attached = lora.attach(base(), adapters(), SETTINGS)
    merged = lora.merge(base(), adapters(), SETTINGS)
    applied = _logits(MODEL, attached, BATCH.tokens)
    assert np.max(np.abs(applied - _logits(MODEL, base(), BATCH.tokens))) > 0.1
    np.testing.assert_allclose(_logits(MODEL, merged, BATCH.tokens), applied, atol=1e-5, rtol=1e-5)
    assert_equal(
        transformer.for_decoding(MODEL, attached, "float32"),
        transformer.for_decoding(MODEL, merged, "float32"),
        atol=1e-6,
    )
    assert merged["embedding"] is base()["embedding"]
    factors = adapters()["output"]
    by_hand = np.einsum("LHER,LRD->LHED", factors["down"], factors["up"]) * 6.0 / 2
    np.testing.assert_allclose(
        merged["layers"]["output"], base()["layers"]["output"] + by_hand, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_in_bfloat16_sampler_and_learner_show_what_a_small_update_changes(seed):
    model = fakes.model(
        vocab_size=40, layers=2, width=64, heads=4, kv_heads=2, head_width=16, mlp_width=96
    )
    settings, draw = LoraSettings(rank=4, alpha=8.0), np.random.default_rng(seed)
    base = jax.tree.map(lambda x: x.astype("bfloat16"), fakes.params(model, seed))
    fresh = lora.init(jax.random.key(seed), model, settings)
    tokens_BT = draw.integers(0, 40, (16, 48)).astype(np.int32)

    def small(path, x):  # as after a few steps of Adam
        up = path[-1].key == "up"
        return jnp.float32(1e-3 * np.sign(draw.normal(size=x.shape))) if up else x

    trained = jax.tree_util.tree_map_with_path(small, fresh)

    def shift(dtype: str, *, decoding: bool):
        """What the adapters change of every log-prob."""

        @jax.jit
        def log_probs(adapters):
            weights = lora.attach(base, adapters, settings)
            if not decoding:
                weights = jax.tree.map(lambda x: x.astype(dtype), weights)
                return jax.nn.log_softmax(transformer.logits(model, weights, tokens_BT))
            weights = transformer.for_decoding(model, weights, dtype)
            cache = kv.empty(model, *tokens_BT.shape, dtype)
            start_B = jnp.zeros(len(tokens_BT), jnp.int32)
            hidden_BTD, _ = transformer.extend(model, weights, cache, tokens_BT, start_B)
            return jax.nn.log_softmax(transformer.project(model, weights, hidden_BTD))

        return np.asarray(log_probs(trained) - log_probs(fresh), np.float64)

    exact = shift("float32", decoding=False)
    found = (shift("bfloat16", decoding=decoding) for decoding in (False, True))
    learner, sampler = (np.vdot(x, exact) / np.vdot(exact, exact) for x in found)
    assert learner > 0.95 and sampler > 0.95 * learner


def test_targets_are_whole_paths():
    settings = LoraSettings(rank=1, targets="layers/(query|up)")
    assert list(lora.init(jax.random.key(0), MODEL, settings)) == ["query", "up"]
    with pytest.raises(InputError, match=r"'query' matches no.*layers/query, layers/key"):
        lora.targets(MODEL, LoraSettings(rank=1, targets="query"))


def test_factors_are_split_over_the_mesh_as_their_weights_are():
    mesh = sharding.make_mesh(2, 2, 2)
    model = fakes.model(layers=2, kv_heads=2)
    laid_out = lora.init(jax.random.key(0), model, SETTINGS, mesh)
    assert laid_out["query"]["down"].sharding.spec == P(None, "fsdp", None)
    assert laid_out["query"]["up"].sharding.spec == P(None, None, "tensor", None)
    assert laid_out["output"]["down"].sharding.spec == P(None, "tensor", None, None)
    assert_equal(laid_out, lora.init(jax.random.key(0), model, SETTINGS), rtol=1e-6)


# The update


def test_the_first_step_has_the_loss_and_metrics_of_the_full_model():
    fresh = lora.init(jax.random.key(0), MODEL, SETTINGS)
    found, ours = gradient(fresh, {}, base())
    _, theirs = gradient(base(), base(), lora=LoraSettings())
    assert_equal(ours, theirs, rtol=1e-6, atol=1e-6)
    # B = 0 hides A from the loss, so the first step moves B alone.
    for factors in found.values():
        assert not np.any(factors["down"]) and np.any(factors["up"])


def test_the_gradient_is_the_full_models_chained_with_the_merge():
    start = adapters()
    # In parts and recomputed, which must not change the gradient.
    found, metrics = gradient(start, {}, base(), remat="full", split=Split(2), chunk=5)
    merged, backward = jax.vjp(lambda adapters: lora.merge(base(), adapters, SETTINGS), start)
    full, expected = gradient(merged, base(), lora=LoraSettings())
    assert_equal(metrics, expected, rtol=1e-4, atol=1e-4)
    assert_equal(found, backward(full)[0], rtol=1e-3, atol=1e-5)


def test_a_reference_may_be_other_adapters_of_the_same_base():
    _, ours = gradient(adapters(), adapters(1), base())
    merged = [lora.merge(base(), adapters(seed), SETTINGS) for seed in (0, 1)]
    _, theirs = gradient(*merged, lora=LoraSettings())
    assert_equal(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_update_trains_only_adapters_and_has_optimizer_state_only_for_them():
    before = jax.device_get(base())
    state = step.init(adapters(), learner())
    sizes = [x.size for x in jax.tree.leaves(adapters())]
    moments = [x.size for x in jax.tree.leaves(state.opt_state) if x.size > 1]
    assert sorted(moments) == sorted(sizes * 2)
    for _ in range(2):
        state, _ = step.train_step(state, {}, BATCH, stage=STAGE, base=base())
    assert_equal(jax.device_get(base()), before)
    moved = jax.tree.map(lambda x, y: bool(np.all(x != y)), state.params, adapters())
    assert all(jax.tree.leaves(moved)) and jax.tree.structure(moved).num_leaves == 14


def test_no_gradient_of_the_base_is_computed():
    model = fakes.model(mlp_width=512)  # so that its weights' products are most of a step
    base, flops = fakes.params(model), {}
    for rank in (0, 1):
        settings = LoraSettings(rank=rank)

        def start(settings: LoraSettings):
            trained = lora.init(jax.random.key(0), model, settings) if settings.rank else base
            return step.init(trained, fakes.learner_settings(model, lora=settings))

        state = jax.eval_shape(functools.partial(start, settings))
        frozen = {"reference": {}, "base": base} if rank else {"reference": base}
        lowered = step.lower(state, batch=BATCH, stage=STAGE, **frozen)
        flops[rank] = lowered.cost_analysis()["flops"]
    # Forward 1, backward by inputs 1, and by weights 1, which is gone.
    assert flops[1] < 0.8 * flops[0]


@pytest.mark.slow
def test_an_update_on_a_mesh_is_that_of_one_device():
    model = fakes.model(layers=2, kv_heads=2, vocab_size=6)
    batch, base = fakes.batch(problems=4, config=model), fakes.params(model)

    def update(mesh):
        state = step.init(
            lora.init(jax.random.key(0), model, SETTINGS, mesh),
            fakes.learner_settings(model, lora=SETTINGS),
        )
        frozen, rows = base, batch
        if mesh:
            frozen = jax.device_put(base, sharding.params_shardings(mesh, transformer.AXES, base))
            state, rows = sharding.on_mesh(mesh, state), jax.device_put(batch, sharding.rows(mesh))
        for _ in range(2):
            state, _ = step.train_step(state, {}, rows, stage=STAGE, base=frozen)
        return jax.device_get(state.params)

    assert_equal(update(sharding.make_mesh(2, 2, 2)), update(None), atol=1e-6)
