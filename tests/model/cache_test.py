"""The cache against slow loops: writes, visible slots, and that nothing is copied."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import cache as kv
from score_jax.model import cache_layouts
from score_jax.model.cache_layouts import LAYOUTS, ByHead, ByRow
from tests import fakes

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.parametrize("layout", LAYOUTS),
]

attend_chunk = jax.jit(kv.attend_chunk)
attend_step = jax.jit(kv.attend_step)

ROWS, KV_HEADS, SLOTS, WIDTH = 3, 2, 6, 4
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def laid_out(layout: str, key_BKES: np.ndarray, value_BKSE: np.ndarray) -> kv.LayerCache:
    if layout == "by_head":
        return ByHead(jnp.array(key_BKES), jnp.array(value_BKSE))
    rows, _, slots, _ = value_BKSE.shape
    key_BSC = key_BKES.transpose(0, 3, 1, 2).reshape(rows, slots, -1)
    value_BSC = value_BKSE.transpose(0, 2, 1, 3).reshape(rows, slots, -1)
    return ByRow(jnp.array(key_BSC), jnp.array(value_BSC), KV_HEADS)


def by_head(layer: kv.LayerCache) -> tuple[np.ndarray, np.ndarray]:
    """Any layout's key_BKES and value_BKSE, writable copies."""
    if isinstance(layer, ByHead):
        return np.array(layer.key), np.array(layer.value)
    key_BSKE, value_BSKE = (
        np.asarray(x).reshape(*x.shape[:2], KV_HEADS, -1) for x in (layer.key, layer.value)
    )
    return key_BSKE.transpose(0, 2, 3, 1).copy(), value_BSKE.transpose(0, 2, 1, 3).copy()


def full_layer(layout: str, rows: int = ROWS) -> kv.LayerCache:
    """A layer's cache with something everywhere."""
    key_BKES = normal(rows, KV_HEADS, WIDTH, SLOTS)
    return laid_out(layout, key_BKES, normal(rows, KV_HEADS, SLOTS, WIDTH))


def new_tokens(heads: int, tokens: int, rows: int = ROWS):
    return (normal(rows, tokens, heads, WIDTH), *(normal(rows, tokens, 2, WIDTH) for _ in "kv"))


def slow_attend(
    layer_cache, q_HE: np.ndarray, row: int, seen: list[int], softcap: float = 0.0
) -> np.ndarray:
    """One token's output, [H, E]; queries are scaled. Head h reads key/value head h // (H / K)."""
    key_BKES, value_BKSE = by_head(layer_cache)
    out_HE = np.zeros_like(q_HE)
    for h in range(len(q_HE)):
        k = h // (len(q_HE) // KV_HEADS)
        score_S = q_HE[h] @ key_BKES[row, k][:, seen]
        if softcap:
            score_S = softcap * np.tanh(score_S / softcap)
        weight_S = np.exp(score_S - score_S.max())
        out_HE[h] = weight_S / weight_S.sum() @ value_BKSE[row, k][seen]
    return out_HE


@pytest.mark.parametrize(
    "heads, tokens, window, softcap", [(2, 1, 0, 0.0), (4, 3, 0, 0.0), (4, 3, 2, 0.7)]
)
def test_a_chunk_is_written_at_its_positions_and_sees_up_to_itself(
    layout, heads, tokens, window, softcap
):
    before, new = full_layer(layout), new_tokens(heads, tokens)
    position_BN = np.array([3, 0, 4])[:, None] + np.arange(tokens)  # the last row's goes past S
    attend = functools.partial(kv.attend_chunk, window=window, softcap=softcap)
    out_BNHE, after = jax.jit(attend)(before, *new, position_BN)

    key_BKES, value_BKSE = by_head(before)
    for b, n in np.ndindex(position_BN.shape):
        if (position := position_BN[b, n]) < SLOTS:
            key_BKES[b, :, :, position] = new[1][b, n]
            value_BKSE[b, :, position] = new[2][b, n]
    jax.tree.map(np.testing.assert_array_equal, by_head(after), (key_BKES, value_BKSE))
    for b, n in np.ndindex(position_BN.shape):
        first = max(0, position_BN[b, n] + 1 - window) if window else 0
        seen = list(range(first, min(position_BN[b, n] + 1, SLOTS)))
        expected_HE = slow_attend(after, new[0][b, n], b, seen, softcap)
        np.testing.assert_allclose(out_BNHE[b, n], expected_HE, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window, softcap", [(0, 0.0), (2, 0.7)])
def test_a_prompt_that_fills_the_cache_is_a_chunk_from_its_start(layout, window, softcap):
    before, new = full_layer(layout), new_tokens(4, SLOTS)
    position_BN = np.tile(np.arange(SLOTS), (len(new[0]), 1))
    how = {"window": window, "softcap": softcap}
    found = jax.jit(functools.partial(kv.attend_prompt, **how))(before, *new)
    wanted = jax.jit(functools.partial(kv.attend_chunk, **how))(before, *new, position_BN)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_slots_after_a_row_are_never_read(layout):
    layer_cache, new = full_layer(layout, 1), new_tokens(4, 2, rows=1)
    position_BN = np.array([[2, 3]])
    out_BNHE, _ = attend_chunk(layer_cache, *new, position_BN)
    key_BKES, value_BKSE = by_head(layer_cache)
    key_BKES[..., 4:], value_BKSE[:, :, 4:] = 1e4, 1e4
    junk = laid_out(layout, key_BKES, value_BKSE)
    with_junk_BNHE, _ = attend_chunk(junk, *new, position_BN)
    np.testing.assert_array_equal(out_BNHE, with_junk_BNHE)


@pytest.mark.parametrize(
    "slot, window, softcap, lanes",
    [(0, 0, 0.0, 1), (1, 0, 0.0, 8), (5, 0, 0.0, 8), (1, 2, 0.7, 8), (5, 2, 0.7, 128)],
)
def test_a_ring_writes_one_slot_of_live_rows_and_sees_the_length_before_it(
    layout, slot, window, softcap, lanes, monkeypatch
):
    monkeypatch.setattr(cache_layouts, "LANES", lanes)  # C = 8 fills them, or its heads do
    before, new = full_layer(layout), new_tokens(4, 1)
    length_B, live_B = np.array([2, 5, 0]), np.array([True, False, True])
    visible_B1S = kv.visible_in_ring(SLOTS, jnp.int32(slot), jnp.array(length_B), window)
    attend = jax.jit(functools.partial(kv.attend_step, softcap=softcap))
    out_B1HE, after = attend(before, *new, slot, visible_B1S, live_B)

    key_BKES, value_BKSE = by_head(before)
    key_BKES[[0, 2], :, :, slot] = new[1][[0, 2], 0]
    value_BKSE[[0, 2], :, slot] = new[2][[0, 2], 0]
    jax.tree.map(np.testing.assert_array_equal, by_head(after), (key_BKES, value_BKSE))
    for b in (0, 2):
        ages = range(min(length_B[b] + 1, window or SLOTS))
        seen = [(slot - age) % SLOTS for age in ages]
        expected_HE = slow_attend(after, new[0][b, 0], b, seen, softcap)
        np.testing.assert_allclose(out_B1HE[b, 0], expected_HE, rtol=0, atol=1e-5)


def test_rows_converted_to_a_ring_end_before_its_slot_and_convert_back_unchanged(layout):
    cache = (full_layer(layout), full_layer(layout))
    length_B, slot = jnp.array([2, 6, 5]), jnp.int32(4)
    ring = kv.to_ring(cache, length_B, slot)
    for before, after in zip(cache, ring, strict=True):
        (key_BKES, value_BKSE), (ring_key, ring_value) = by_head(before), by_head(after)
        for b, length in enumerate(length_B.tolist()):
            for position in range(length):
                s = (4 - length + position) % SLOTS
                np.testing.assert_array_equal(ring_key[b, :, :, s], key_BKES[b, :, :, position])
                np.testing.assert_array_equal(ring_value[b, :, s], value_BKSE[b, :, position])
    back = kv.from_ring(ring, length_B, jnp.full(ROWS, slot))
    jax.tree.map(np.testing.assert_array_equal, back, cache)


def test_rows_are_taken_and_put_by_index_and_dropped_past_the_end(layout):
    cache = (full_layer(layout),)
    taken = kv.take(cache, jnp.array([2, 0, ROWS]))
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x[:2], y[jnp.array([2, 0])]), taken, cache
    )
    changed = kv.put(cache, jnp.array([ROWS, 1, ROWS + 4]), taken)
    expected = jax.tree.map(lambda x, y: x.at[1].set(y[1]), cache, taken)
    jax.tree.map(np.testing.assert_array_equal, changed, expected)


def test_a_widened_cache_holds_the_same_rows(layout):
    cache = (full_layer(layout),)
    wide = kv.widen(cache, SLOTS + 3)
    assert kv.slots_of(wide) == SLOTS + 3
    key_BKES, value_BKSE = by_head(wide[0])
    kept = key_BKES[..., :SLOTS], value_BKSE[:, :, :SLOTS]
    jax.tree.map(np.testing.assert_array_equal, kept, by_head(cache[0]))


def test_an_empty_cache_has_a_pair_per_layer_in_the_dtype_asked_for(layout):
    model = fakes.model(layers=3, heads=4, kv_heads=2, head_width=8)
    cache = kv.empty(model, rows=5, slots=7, dtype="bfloat16", layout=layout)
    shapes = [tuple(x.shape for x in by_head(layer)) for layer in cache]
    assert shapes == [((5, 2, 8, 7), (5, 2, 7, 8))] * 3
    assert not any(x.any() for x in jax.tree.leaves(cache))
    new = [jnp.ones((5, 1, heads, 8), jnp.bfloat16) for heads in (4, 2, 2)]
    chunk = attend_chunk(cache[0], *new, np.zeros((5, 1), np.int32))
    visible_B1S, live_B = np.ones((5, 1, 7), bool), np.ones(5, bool)
    one = attend_step(cache[0], *new, 0, visible_B1S, live_B)
    assert {x.dtype.name for x in jax.tree.leaves((chunk, one))} == {"bfloat16"}


def test_a_token_loop_updates_the_cache_in_place(layout):
    rows, slots = 16, 1024

    def decode(layer_cache, x_B1HE):
        def step(n, carry):
            layer_cache, x_B1HE = carry
            k_B1KE = x_B1HE[:, :, :KV_HEADS]
            visible_B1S = kv.visible_in_ring(slots, n, jnp.full(rows, n))
            out_B1HE, kept = kv.attend_step(
                layer_cache, x_B1HE, k_B1KE, k_B1KE, n, visible_B1S, x_B1HE[:, 0, 0, 0] > 0
            )
            return kept, out_B1HE

        return jax.lax.fori_loop(0, slots, step, (layer_cache, x_B1HE))

    model = fakes.model(layers=1, heads=4, kv_heads=KV_HEADS, head_width=32)
    (layer_cache,) = jax.eval_shape(lambda: kv.empty(model, rows, slots, "float32", layout))
    x_B1HE = jax.ShapeDtypeStruct((rows, 1, 4, 32), "float32")
    compiled = jax.jit(decode, donate_argnums=0).lower(layer_cache, x_B1HE).compile()
    memory, one_bytes = compiled.memory_analysis(), rows * 2 * slots * 32 * 4
    assert memory is not None
    assert memory.temp_size_in_bytes < one_bytes, "a copy of keys or values exists"
    assert memory.alias_size_in_bytes >= 2 * one_bytes
