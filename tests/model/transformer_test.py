"""The decoder in its two forms: over whole rows, and over chunks fed to a cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import cache as kv
from score_jax.model import transformer
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPE = {"vocab_size": 14, "layers": 2, "heads": 4, "head_width": 4, "rope_theta": 100.0}
MODEL = fakes.model(kv_heads=2, **SHAPE)
PARAMS = fakes.params(MODEL)
TOKENS_BT = np.random.default_rng(0).integers(0, MODEL.vocab_size, (3, 8)).astype(np.int32)

# Rows of eight tokens cross the windows, and chunks of four and rings do.
OF_FAMILY = {
    family: fakes.model_of_family(family, **(SHAPE | {"head_width": 8}))
    for family in fakes.OF_FAMILY
}
BIASES = dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), True)
OF_FAMILY["llama, biases"] = fakes.model(kv_heads=2, **BIASES, **SHAPE)

logits = jax.jit(transformer.logits, static_argnums=0)
extend = jax.jit(transformer.extend, static_argnums=0)


def assert_close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_a_token_influences_itself_and_what_follows_only():
    tokens_1T = jnp.array([[5, 3, 9, 0, 12, 7]])  # all different: a row of the embedding each

    @jax.jit
    @jax.jacrev
    def influence(embedding_VD):
        logits_1TV = transformer.logits(MODEL, {**PARAMS, "embedding": embedding_VD}, tokens_1T)
        return jnp.sum(jnp.sin(logits_1TV), axis=(0, 2))

    on_TT = np.abs(influence(PARAMS["embedding"])[:, tokens_1T[0]]).max(axis=-1)
    assert np.all(on_TT[np.triu_indices(6, 1)] == 0)
    assert np.all(on_TT[np.tril_indices(6)] > 0)


@pytest.mark.parametrize(
    "model",
    [
        *(fakes.model(kv_heads=1, **SHAPE), fakes.model(kv_heads=4, tied=True, **SHAPE)),
        *OF_FAMILY.values(),
    ],
    ids=["one key head", "tied", *OF_FAMILY],
)
def test_chunks_fed_to_a_cache_equal_whole_rows_at_every_position(model):
    params = fakes.params(model)
    assert ("head" in params) != model.tied
    layers, (rows, columns) = transformer.for_decoding(model, params, "float32"), TOKENS_BT.shape
    cache = kv.empty(model, rows, columns, "float32")
    found_BTD = np.full((rows, columns, model.width), np.nan, np.float32)
    start_B = np.zeros(rows, np.int32)
    # Chunks of one width hold another number of tokens for each row; what pads them is junk, and
    # the last chunk's reaches past the end of the cache.
    for width, fed in [
        (4, (4, 1, 2)),
        (1, (1, 1, 1)),
        (4, (2, 4, 0)),
        (1, (0, 1, 1)),
        (4, (1, 1, 4)),
    ]:
        chunk_BN = np.full((rows, width), 13, np.int32)
        for b in range(rows):
            chunk_BN[b, : fed[b]] = TOKENS_BT[b, start_B[b] : start_B[b] + fed[b]]
        hidden_BND, cache = extend(model, layers, cache, chunk_BN, start_B)
        for b in range(rows):
            found_BTD[b, start_B[b] : start_B[b] + fed[b]] = hidden_BND[b, : fed[b]]
        start_B = start_B + np.array(fed, np.int32)
    assert start_B.tolist() == [columns] * rows
    found_BTV = transformer.project(model, params, jnp.array(found_BTD))
    assert_close(found_BTV, logits(model, params, TOKENS_BT))


@pytest.mark.parametrize("family", OF_FAMILY)
def test_a_ring_fed_token_by_token_equals_whole_rows_around_its_end(family):
    # Rows start and wait at different times; the ring has just the room of one row, so all of them
    # are written around its end.
    model, (rows, columns) = OF_FAMILY[family], TOKENS_BT.shape
    params = fakes.params(model)
    layers = transformer.for_decoding(model, params, "float32")
    cache = kv.empty(model, rows, columns, "float32")
    feed = jax.jit(transformer.step, static_argnums=0)
    turn = jax.jit(lambda cache, *of: kv.to_ring(kv.from_ring(cache, *of[:2]), of[0], of[2]))
    found_BTD = np.full((rows, columns, model.width), np.nan, np.float32)
    length_B, end_B, slot = np.zeros(rows, np.int32), np.zeros(rows, np.int32), columns - 2
    noise = np.random.default_rng(0)
    while (length_B < columns).any():
        live_B = (noise.random(rows) < 0.6) & (length_B < columns)
        turned = turn(cache, length_B, end_B, jnp.int32(slot))  # rows that waited come along
        cache = kv.put(cache, jnp.where(live_B, jnp.arange(rows), rows), turned)
        token_B = TOKENS_BT[np.arange(rows), np.minimum(length_B, columns - 1)]
        hidden_BD, cache = feed(model, layers, cache, token_B, length_B, jnp.int32(slot), live_B)
        found_BTD[live_B, length_B[live_B]] = hidden_BD[live_B]
        slot = (slot + 1) % columns
        length_B, end_B = length_B + live_B, np.where(live_B, slot, end_B)
    found_BTV = transformer.project(model, params, jnp.array(found_BTD))
    assert_close(found_BTV, logits(model, params, TOKENS_BT))


def test_padding_after_a_row_changes_nothing_before_it():
    padded_BT = TOKENS_BT.copy()
    padded_BT[:, 5:] = (padded_BT[:, 5:] + 1) % MODEL.vocab_size
    ours, theirs = logits(MODEL, PARAMS, TOKENS_BT), logits(MODEL, PARAMS, padded_BT)
    np.testing.assert_array_equal(ours[:, :5], theirs[:, :5])
    assert np.all(np.any(ours[:, 5:] != theirs[:, 5:], axis=-1))


def test_the_program_over_whole_rows_does_not_grow_with_the_layers():
    def lines(model) -> int:
        params = jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))
        return len(logits.lower(model, params, TOKENS_BT).as_text().splitlines())

    model = OF_FAMILY["gemma3_text"]
    deep = dataclasses.replace(model, layers=6, windows=model.windows * 3)
    assert lines(deep) == lines(model)


def test_recomputing_activations_gives_the_same_gradients():
    def loss(params, remat):
        return jnp.sum(
            jnp.sin(transformer.hidden(MODEL, params, jnp.array(TOKENS_BT), remat=remat))
        )

    found = {
        remat: jax.jit(jax.value_and_grad(functools.partial(loss, remat=remat)))(PARAMS)
        for remat in transformer.REMAT
    }
    jax.tree.map(assert_close, found["none"], found["products"])
    jax.tree.map(assert_close, found["none"], found["full"])


def test_the_more_is_recomputed_the_less_is_kept():
    def kept_bytes(remat):
        def loss(params):
            return jnp.sum(jnp.sin(transformer.hidden(MODEL, params, TOKENS_BT, remat=remat)))

        _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), PARAMS)
        return sum(x.size for x in jax.tree.leaves(backward))

    assert kept_bytes("none") > 1.5 * kept_bytes("products") > 1.5 * kept_bytes("full")


def test_new_params_have_the_axes_they_are_described_by():
    seen = set()
    for model in (fakes.model(kv_heads=2, **SHAPE), *OF_FAMILY.values()):
        shapes = jax.eval_shape(lambda model=model: transformer.init(model, jax.random.key(0)))
        leaves = {path[-1].key: x for path, x in jax.tree_util.tree_leaves_with_path(shapes)}
        assert ("head" in leaves) != model.tied
        seen |= set(leaves)
        size = {"vocab": 14, "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 16}
        for name, x in leaves.items():
            axes = transformer.AXES[name]
            assert len(axes) == x.ndim, name
            assert all(a is None or size[a] == n for a, n in zip(axes, x.shape, strict=True)), name
    assert seen == set(transformer.AXES)


def test_new_params_keep_the_scale_of_activations():
    model = fakes.model(vocab_size=50, layers=3, width=64, heads=4, head_width=16, mlp_width=96)
    params = jax.jit(transformer.init, static_argnums=0)(model, jax.random.key(0))
    layers = params["layers"]
    assert not np.array_equal(layers["query"][0], layers["query"][1]), "every layer has its own"
    for name, inputs in {"query": 64, "key": 64, "value": 64, "output": 64, "down": 96}.items():
        assert float(jnp.std(layers[name])) == pytest.approx(inputs**-0.5, rel=0.1), name
    assert np.all(layers["attention_norm"] == 1)


def test_the_decoding_layout_holds_the_same_layers():
    layers = transformer.for_decoding(MODEL, PARAMS, "float32")["layers"]
    assert len(layers) == MODEL.layers
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *layers)
    jax.tree.map(np.testing.assert_array_equal, stacked, PARAMS["layers"])


def test_logits_are_float32_for_any_dtype_of_params():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    shape = jax.eval_shape(functools.partial(transformer.logits, MODEL), params, TOKENS_BT)
    assert (shape.shape, shape.dtype) == ((3, 8, MODEL.vocab_size), jnp.float32)


def test_a_tied_head_is_the_transposed_embedding_and_an_untied_one_its_own():
    embedding_VD, head_DV = (
        jnp.array([[1.0, 2.0], [3.0, 5.0]]),
        jnp.array([[1.0, -1.0], [0.0, 2.0]]),
    )
    tied, untied = {"embedding": embedding_VD}, {"embedding": embedding_VD, "head": head_DV}
    model, hidden_11D = fakes.model(**SHAPE), jnp.array([[[1.0, 10.0]]])
    assert_close(transformer.project(model, tied, hidden_11D), [[[21.0, 53.0]]])
    assert_close(transformer.project(model, untied, hidden_11D), [[[1.0, 19.0]]])
