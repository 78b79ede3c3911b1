"""The cache against a slow loop: what is written, what is seen, and that nothing is copied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import cache as kv
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

attend_cached = jax.jit(kv.attend_cached)

ROWS, KV_HEADS, SLOTS, WIDTH, HEADS = 3, 2, 6, 4, 4
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def slow_attend(keys_BKSE, values_BKSE, new, position_BN, row_B):
    """One row, token and head at a time. Head h reads key/value head h // (H / K)."""
    q_BNHE, k_BNKE, v_BNKE = new
    keys_BKSE, values_BKSE = keys_BKSE.copy(), values_BKSE.copy()
    out_BNHE = np.zeros_like(q_BNHE)
    for b, row in enumerate(row_B):
        for n, position in enumerate(position_BN[b]):
            if position < keys_BKSE.shape[2]:
                keys_BKSE[row, :, position] = k_BNKE[b, n]
                values_BKSE[row, :, position] = v_BNKE[b, n]
        for n, position in enumerate(position_BN[b]):
            for h in range(q_BNHE.shape[2]):
                k = h // (q_BNHE.shape[2] // keys_BKSE.shape[1])
                score_S = keys_BKSE[row, k, : position + 1] @ q_BNHE[b, n, h] / np.sqrt(WIDTH)
                weight_S = np.exp(score_S - score_S.max())
                out_BNHE[b, n, h] = weight_S / weight_S.sum() @ values_BKSE[row, k, : position + 1]
    return out_BNHE, (keys_BKSE, values_BKSE)


@pytest.mark.parametrize(
    "heads, width, rows", [(2, 1, None), (HEADS, 3, None), (2, 3, (2, 0)), (HEADS, 1, (2, 0))]
)
def test_attention_through_the_cache_equals_a_slow_loop(heads, width, rows):
    count = ROWS if rows is None else len(rows)
    layer_cache = (normal(ROWS, KV_HEADS, SLOTS, WIDTH), normal(ROWS, KV_HEADS, SLOTS, WIDTH))
    new = (normal(count, width, heads, WIDTH), *(normal(count, width, 2, WIDTH) for _ in "kv"))
    position_BN = np.array([3, 0, 2])[:count, None] + np.arange(width)
    row_B = None if rows is None else jnp.array(rows)
    out_BNHE, kept = attend_cached(jax.tree.map(jnp.array, layer_cache), *new, position_BN, row_B)
    slow_BNHE, slow_kept = slow_attend(*layer_cache, new, position_BN, rows or range(ROWS))
    np.testing.assert_allclose(out_BNHE, slow_BNHE, rtol=0, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, kept, slow_kept)


def test_what_lies_behind_a_row_is_never_read():
    layer_cache = (normal(1, 2, SLOTS, WIDTH), normal(1, 2, SLOTS, WIDTH))
    new = (normal(1, 2, HEADS, WIDTH), normal(1, 2, 2, WIDTH), normal(1, 2, 2, WIDTH))
    position_BN = np.array([[2, 3]])
    out_BNHE, _ = attend_cached(jax.tree.map(jnp.array, layer_cache), *new, position_BN, None)
    junk = jax.tree.map(lambda x: jnp.array(x).at[:, :, 4:].set(1e4), layer_cache)
    with_junk_BNHE, _ = attend_cached(junk, *new, position_BN, None)
    np.testing.assert_array_equal(out_BNHE, with_junk_BNHE)


@pytest.mark.parametrize(
    "position, row", [(SLOTS, 1), (1, ROWS)], ids=["past the last slot", "past the last row"]
)
def test_what_is_past_the_end_is_written_nowhere(position, row):
    layer_cache = (
        jnp.array(normal(ROWS, 2, SLOTS, WIDTH)),
        jnp.array(normal(ROWS, 2, SLOTS, WIDTH)),
    )
    new = (normal(1, 1, HEADS, WIDTH), normal(1, 1, 2, WIDTH), normal(1, 1, 2, WIDTH))
    _, kept = attend_cached(layer_cache, *new, np.array([[position]]), jnp.array([row]))
    jax.tree.map(np.testing.assert_array_equal, kept, layer_cache)


def test_an_empty_cache_has_a_pair_per_layer_in_the_dtype_asked_for():
    model = fakes.model(layers=3, heads=4, kv_heads=2, head_width=8)
    cache = kv.empty(model, rows=5, slots=7, dtype="bfloat16")
    assert len(cache) == 3
    assert {(x.shape, x.dtype.name) for x in jax.tree.leaves(cache)} == {((5, 2, 7, 8), "bfloat16")}
    assert not any(x.any() for x in jax.tree.leaves(cache))
    new = [jnp.ones((5, 1, heads, 8), jnp.bfloat16) for heads in (4, 2, 2)]
    out_BNHE, kept = attend_cached(cache[0], *new, np.zeros((5, 1), np.int32), None)
    assert {x.dtype.name for x in (out_BNHE, *kept)} == {"bfloat16"}


def test_a_token_loop_updates_the_cache_in_place():
    rows, slots = 16, 1024

    def decode(layer_cache, x_BNHE):
        def step(n, carry):
            layer_cache, x_BNHE = carry
            k_BNKE = x_BNHE[:, :, :KV_HEADS]
            position_B1 = jnp.full((rows, 1), n)
            out_BNHE, kept = kv.attend_cached(
                layer_cache, x_BNHE, k_BNKE, k_BNKE, position_B1, None
            )
            return kept, out_BNHE

        return jax.lax.fori_loop(0, slots, step, (layer_cache, x_BNHE))

    layer_cache = tuple(jax.ShapeDtypeStruct((rows, 2, slots, 32), "float32") for _ in "kv")
    x_BNHE = jax.ShapeDtypeStruct((rows, 1, HEADS, 32), "float32")
    compiled = jax.jit(decode, donate_argnums=0).lower(layer_cache, x_BNHE).compile()
    memory, one_bytes = compiled.memory_analysis(), rows * 2 * slots * 32 * 4
    assert memory is not None
    assert memory.temp_size_in_bytes < one_bytes, "a copy of keys or values exists"
    assert memory.alias_size_in_bytes >= 2 * one_bytes
