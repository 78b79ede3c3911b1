"""The key/value cache: an explicit pytree, one pair of arrays per layer, updated in place.

A layer's arrays are separate, not stacked: XLA can then update each in place and read it without
slicing a stack first. cache_layouts.py has the layouts of a layer in memory.

Rows of different lengths are put into S slots in one of two ways.

*Contiguous*, for feeding many tokens at once (a prompt, an instruction): position = slot.

    row 0   p p p a a .  .  .      length 5, next token goes to slot 5
    row 1   p p p p p a  .  .      length 6
    row 2   p p a ? ? .  .  .      length 3; slots marked ? hold a chunk's padding, overwritten next

*Ring*, for writing one token in every row at a time: all rows end at one shared slot. So a step's
keys and values are one slice of the array, written in place, whatever the rows' lengths (a scatter
to every row's own length would cost more, on TPUs much more). A row sees the `length` slots before
the shared one, wrapping around the end of the array.

    row 0   . . . p p p a a|.      the next slot is 8 for every row
    row 1   . . p p p p p a|.
    row 2   . . . . . p p a|.

`to_ring` and `from_ring` convert rows from one form to the other.
"""

import functools

import jax
import jax.numpy as jnp

from score_jax.model.attention import soft_cap
from score_jax.model.cache_layouts import LAYOUTS, ByHead, ByRow
from score_jax.model.families import ModelConfig

LayerCache = ByHead | ByRow
Cache = tuple[LayerCache, ...]


def empty(
    config: ModelConfig,
    rows: int,
    slots: int,
    dtype: str,
    layout: str = "by_head",
    *,
    layers: int = 0,
) -> Cache:
    """A cache of zeros for `rows` rows of at most `slots` tokens.

    layout: one of LAYOUTS. layers: the first ones; 0: all.
    """
    return tuple(
        LAYOUTS[layout].empty(config, rows, slots, dtype, number)
        for number in range(layers or config.layers)
    )


def numbered(layer: LayerCache, number: int | jax.Array) -> LayerCache:
    """The layer's cache as that of another layer. A traced number must not leave its program."""
    return layer.replace(number=number) if isinstance(layer, ByHead) else layer


def slots_of(cache: Cache) -> int:
    """S: how many tokens a row can hold."""
    return cache[0].key.shape[cache[0].SLOT_AXES[0]]


def attend_chunk(
    layer: LayerCache,
    q_BNHE: jax.Array,
    k_BNKE: jax.Array,
    v_BNKE: jax.Array,
    position_BN: jax.Array,
    *,
    window: int = 0,
    softcap: float = 0.0,
) -> tuple[jax.Array, LayerCache]:
    """Contiguous rows: writes N tokens at their positions; each attends up to its own position.

    window: how many tokens a token sees, itself included; 0: all.
    Returns: out_BNHE and the layer's new cache. Tokens at positions past the end are dropped.
    """

    def write(old, new, axis: int):
        where = (slice(None),) * (axis - 1)  # of one row
        set_row = jax.vmap(lambda old, new, at_N: old.at[(*where, at_N)].set(new, mode="drop"))
        return set_row(old, new.astype(old.dtype), position_BN)

    layer = _written(layer, k_BNKE, v_BNKE, write)
    return _attend(layer, q_BNHE, _visible(layer, position_BN, window), softcap), layer


def attend_prompt(
    layer: LayerCache,
    q_BSHE: jax.Array,
    k_BSKE: jax.Array,
    v_BSKE: jax.Array,
    *,
    window: int = 0,
    softcap: float = 0.0,
) -> tuple[jax.Array, LayerCache]:
    """`attend_chunk` of S tokens at the positions 0 to S - 1: the whole cache is new.

    Nothing is scattered: a scatter takes a TPU's compiler as long as the rest of a layer.
    """
    layer = _written(layer, k_BSKE, v_BSKE, lambda old, new, axis: new.astype(old.dtype))
    position_1S = jnp.arange(q_BSHE.shape[1])[None]
    return _attend(layer, q_BSHE, _visible(layer, position_1S, window), softcap), layer


def attend_step(
    layer: LayerCache,
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

    A row that is not live is unchanged: it waits, and the slot may hold a token of its own.
    Returns: out_B1HE and the layer's new cache.
    """

    def write(old, new, axis: int):
        there = jax.lax.dynamic_slice_in_dim(old, slot, 1, axis)
        live = live_B.reshape(-1, *(1,) * (old.ndim - 1))
        new = jnp.where(live, new.astype(old.dtype), there)
        return jax.lax.dynamic_update_slice_in_dim(old, new, slot, axis)

    layer = _written(layer, k_B1KE, v_B1KE, write)
    return _attend(layer, q_B1HE, visible_B1S, softcap), layer


def visible_in_ring(slots: int, slot: jax.Array, length_B: jax.Array, window: int = 0) -> jax.Array:
    """The slots that a token at `slot` sees, [B, 1, S] bool: itself and `length` slots before it.

    window: if not 0, it sees at most that many, itself included.
    """
    age_S = (slot - jnp.arange(slots)) % slots
    if window:
        length_B = jnp.minimum(length_B, window - 1)
    return (age_S <= length_B[:, None])[:, None]


def to_ring(cache: Cache, length_B: jax.Array, slot: jax.Array) -> Cache:
    """Contiguous rows of these lengths, rotated so that each ends right before `slot`."""
    return _turn(cache, length_B - slot)


def from_ring(cache: Cache, length_B: jax.Array, slot_B: jax.Array) -> Cache:
    """Rows of a ring that end right before their `slot_B`, rotated to begin at slot 0."""
    return _turn(cache, slot_B - length_B)


def take(cache: Cache, row_B: jax.Array) -> Cache:
    """These rows of the cache; an index past the end takes the last one."""
    return jax.tree.map(lambda x: x.at[row_B].get(mode="clip"), cache)


def put(cache: Cache, row_B: jax.Array, rows: Cache) -> Cache:
    """The cache with these rows replaced; rows with an index past the end are dropped."""
    return jax.tree.map(lambda x, new: x.at[row_B].set(new, mode="drop"), cache, rows)


def widen(cache: Cache, slots: int) -> Cache:
    """The same rows with room for `slots` tokens."""
    more = slots - slots_of(cache)

    def pad(x: jax.Array, axis: int) -> jax.Array:
        return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])

    return _each(cache, pad)


def _turn(cache: Cache, shift_B: jax.Array) -> Cache:
    """Moves slot s + shift of every row to slot s, wrapping around the end."""
    slots = slots_of(cache)
    first_B = shift_B % slots

    # A slice of two copies end to end. A gather of every slot by its index takes XLA:CPU twice as
    # long to compile, for every array of every layer, and twice as long to run.
    def rolled(x: jax.Array, axis: int) -> jax.Array:
        twice = jnp.concatenate([x, x], axis)
        of_row = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=slots, axis=axis - 1)
        return jax.vmap(of_row)(twice, first_B)

    return _each(cache, rolled)


def _each(cache: Cache, change) -> Cache:
    """`change(array, slot axis)` of every layer's keys and values."""

    def of(layer: LayerCache) -> LayerCache:
        key_axis, value_axis = layer.SLOT_AXES
        return layer.replace(key=change(layer.key, key_axis), value=change(layer.value, value_axis))

    return tuple(of(layer) for layer in cache)


def _written(layer: LayerCache, k_BNKE: jax.Array, v_BNKE: jax.Array, write) -> LayerCache:
    """`write(old, new, slot axis)` of the layer's keys and values."""
    new_key, new_value = layer.stored(k_BNKE, v_BNKE)
    key_axis, value_axis = layer.SLOT_AXES
    return layer.replace(
        key=write(layer.key, new_key, key_axis), value=write(layer.value, new_value, value_axis)
    )


def _visible(layer: LayerCache, position_BN: jax.Array, window: int) -> jax.Array:
    """The slots of contiguous rows that tokens at these positions see, [B, N, S] bool."""
    age_BNS = position_BN[..., None] - jnp.arange(slots_of((layer,)))
    return (age_BNS >= 0) & (age_BNS < window) if window else age_BNS >= 0


def _attend(
    layer: LayerCache, q_BNHE: jax.Array, visible_BNS: jax.Array, softcap: float
) -> jax.Array:
    """Softmax attention of grouped heads, out_BNHE; `block.rotate` has scaled the queries.

    Source: grouped-query attention, arXiv 2305.13245.
    """
    score_BHNS = soft_cap(layer.scores(q_BNHE), softcap)
    score_BHNS += layer.mask(visible_BNS[:, None])
    # Softmax in float32, divided by its sum last: the result is E wide, the weights are S wide.
    weight_BHNS = jnp.exp(score_BHNS - jnp.max(score_BHNS, axis=-1, keepdims=True))
    total_BHN1 = jnp.sum(weight_BHNS, axis=-1, keepdims=True)
    out_BHNE = layer.mean(weight_BHNS.astype(layer.value.dtype), total_BHN1)
    return out_BHNE.astype(q_BNHE.dtype).transpose(0, 2, 1, 3)
