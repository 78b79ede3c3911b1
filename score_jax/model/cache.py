"""The key/value cache: an explicit pytree, one pair of arrays per layer, updated in place.

A layer's arrays are separate, not stacked: XLA can then update each in place and read it without
slicing a stack first. Keys lie with their slots innermost: the scores of a query are then sums of
whole vectors, which made attention 1.7 times as fast on a CPU.

There are two ways to lay rows of different lengths into S slots.

*Contiguous*, for feeding many tokens at once (a prompt, an instruction): position = slot.

    row 0   p p p a a .  .  .      length 5, next token goes to slot 5
    row 1   p p p p p a  .  .      length 6
    row 2   p p a ? ? .  .  .      length 3; slots marked ? hold a chunk's padding, overwritten next

*Ring*, for writing one token in every row at a time: all rows end at one shared slot, so that a
step's keys and values are one slice of the array, written in place, whatever the rows' lengths
(a scatter to every row's own length would be counted, and on TPUs executed, as much more). What a
row sees are the `length` slots before the shared one, around the end of the array if need be.

    row 0   . . . p p p a a|.      the next slot is 8 for every row
    row 1   . . p p p p p a|.
    row 2   . . . . . p p a|.

`to_ring` and `from_ring` turn rows from one layout into the other.
"""

import jax
import jax.numpy as jnp

from score_jax.model.attention import soft_cap
from score_jax.model.families import ModelConfig

# ((key_BKES, value_BKSE) for each layer)
LayerCache = tuple[jax.Array, jax.Array]
Cache = tuple[LayerCache, ...]


def empty(config: ModelConfig, rows: int, slots: int, dtype: str) -> Cache:
    """A cache of zeros for `rows` rows of at most `slots` tokens."""
    k, e = config.kv_heads, config.head_width
    return tuple(
        (jnp.zeros((rows, k, e, slots), dtype), jnp.zeros((rows, k, slots, e), dtype))
        for _ in range(config.layers)
    )


def slots_of(cache: Cache) -> int:
    """S: how many tokens a row can hold."""
    return cache[0][1].shape[2]


def attend_chunk(
    layer_cache: LayerCache,
    q_BNHE: jax.Array,
    k_BNKE: jax.Array,
    v_BNKE: jax.Array,
    position_BN: jax.Array,
    *,
    window: int = 0,
    softcap: float = 0.0,
) -> tuple[jax.Array, LayerCache]:
    """Contiguous rows: writes N tokens at their positions, then each attends up to its own.

    window: tokens that one sees, itself included; 0: all.
    Returns: out_BNHE and the layer's new cache. A position past the end is written nowhere.
    """
    key_BKES, value_BKSE = layer_cache
    row_B1 = jnp.arange(q_BNHE.shape[0])[:, None]
    key_BKES = key_BKES.at[row_B1, :, :, position_BN].set(k_BNKE, mode="drop")
    value_BKSE = value_BKSE.at[row_B1, :, position_BN].set(v_BNKE, mode="drop")
    age_BNS = position_BN[..., None] - jnp.arange(value_BKSE.shape[2])
    visible_BNS = (age_BNS >= 0) & (age_BNS < window) if window else age_BNS >= 0
    out_BNHE = _attend(q_BNHE, key_BKES, value_BKSE, visible_BNS, softcap)
    return out_BNHE, (key_BKES, value_BKSE)


def attend_step(
    layer_cache: LayerCache,
    q_B1HE: jax.Array,
    k_B1KE: jax.Array,
    v_B1KE: jax.Array,
    slot: jax.Array,
    visible_B1S: jax.Array,
    live_B: jax.Array,
    *,
    softcap: float = 0.0,
) -> tuple[jax.Array, LayerCache]:
    """A ring: writes one token of every live row at the shared slot, then attends to `visible`.

    A row that is not live keeps what it has: it waits, and what it holds there may be its own.
    Returns: out_B1HE and the layer's new cache.
    """
    key_BKES, value_BKSE = layer_cache
    k_BKE1, v_BK1E = k_B1KE.transpose(0, 2, 3, 1), v_B1KE.transpose(0, 2, 1, 3)
    live_B111 = live_B[:, None, None, None]

    def write(old, new, axis: int):
        there = jax.lax.dynamic_slice_in_dim(old, slot, 1, axis)
        new = jnp.where(live_B111, new.astype(old.dtype), there)
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis)

    key_BKES, value_BKSE = write(key_BKES, k_BKE1, 3), write(value_BKSE, v_BK1E, 2)
    out_B1HE = _attend(q_B1HE, key_BKES, value_BKSE, visible_B1S, softcap)
    return out_B1HE, (key_BKES, value_BKSE)


def visible_in_ring(slots: int, slot: jax.Array, length_B: jax.Array, window: int = 0) -> jax.Array:
    """What a token written at `slot` sees, [B, 1, S] bool: itself and `length` slots before it.

    window: if not 0, it sees that many at most, itself included.
    """
    age_S = (slot - jnp.arange(slots)) % slots
    if window:
        length_B = jnp.minimum(length_B, window - 1)
    return (age_S <= length_B[:, None])[:, None]


def to_ring(cache: Cache, length_B: jax.Array, slot: jax.Array) -> Cache:
    """Contiguous rows of these lengths, turned so that each ends right before `slot`."""
    return _turn(cache, length_B - slot)


def from_ring(cache: Cache, length_B: jax.Array, slot_B: jax.Array) -> Cache:
    """Rows of a ring that end right before their `slot_B`, turned so that each begins at slot 0."""
    return _turn(cache, slot_B - length_B)


def take(cache: Cache, row_B: jax.Array) -> Cache:
    """These rows of the cache; an index past the end takes the last one."""
    return jax.tree.map(lambda x: x.at[row_B].get(mode="clip"), cache)


def put(cache: Cache, row_B: jax.Array, rows: Cache) -> Cache:
    """The cache with these rows replaced; an index past the end is written nowhere."""
    return jax.tree.map(lambda x, new: x.at[row_B].set(new, mode="drop"), cache, rows)


def widen(cache: Cache, slots: int) -> Cache:
    """The same rows with room for `slots` tokens."""
    more = slots - slots_of(cache)
    return tuple(
        (
            jnp.pad(key_BKES, ((0, 0), (0, 0), (0, 0), (0, more))),
            jnp.pad(value_BKSE, ((0, 0), (0, 0), (0, more), (0, 0))),
        )
        for key_BKES, value_BKSE in cache
    )


def _turn(cache: Cache, shift_B: jax.Array) -> Cache:
    """Every row's slot s takes what slot s + shift held, around the end."""
    slots = slots_of(cache)
    from_BS = (jnp.arange(slots) + shift_B[:, None]) % slots
    return tuple(
        (
            jnp.take_along_axis(key_BKES, from_BS[:, None, None, :], axis=3),
            jnp.take_along_axis(value_BKSE, from_BS[:, None, :, None], axis=2),
        )
        for key_BKES, value_BKSE in cache
    )


def _attend(
    q_BNHE: jax.Array,
    key_BKES: jax.Array,
    value_BKSE: jax.Array,
    visible_BNS: jax.Array,
    softcap: float,
) -> jax.Array:
    """Softmax attention of grouped heads, out_BNHE. Source of the groups: arXiv 2305.13245."""
    b, n, h, e = q_BNHE.shape
    kv_heads = key_BKES.shape[1]
    group = h // kv_heads
    # Heads of a group and tokens as one axis M = G * N, so that both products are plain batched
    # matmuls and no score is transposed.
    q_BKME = q_BNHE.reshape(b, n, kv_heads, group, e).transpose(0, 2, 3, 1, 4)
    q_BKME = q_BKME.reshape(b, kv_heads, group * n, e) * e**-0.5
    score_BKMS = jnp.einsum("BKME,BKES->BKMS", q_BKME, key_BKES, preferred_element_type=jnp.float32)
    score_BKMS = soft_cap(score_BKMS, softcap)
    visible_BMS = jnp.tile(visible_BNS, (1, group, 1))
    score_BKMS = jnp.where(visible_BMS[:, None], score_BKMS, -jnp.inf)
    # Softmax in float32, divided by its sum last, where it is E wide and not S.
    weight_BKMS = jnp.exp(score_BKMS - jnp.max(score_BKMS, axis=-1, keepdims=True))
    total_BKM1 = jnp.sum(weight_BKMS, axis=-1, keepdims=True)
    out_BKME = jnp.einsum(
        "BKMS,BKSE->BKME",
        weight_BKMS.astype(value_BKSE.dtype),
        value_BKSE,
        preferred_element_type=jnp.float32,
    )
    out_BKME = (out_BKME / total_BKM1).astype(q_BNHE.dtype)
    out_BKGNE = out_BKME.reshape(b, kv_heads, group, n, e)
    return out_BKGNE.transpose(0, 3, 1, 2, 4).reshape(b, n, h, e)
