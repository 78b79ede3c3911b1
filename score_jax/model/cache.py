"""The key/value cache: an explicit pytree, one pair of arrays per layer, updated in place.

A layer's arrays are separate, not stacked: XLA can then update each in place and read it without
slicing a stack first. Rows are contiguous and every row writes at its own length; a token attends
to the slots at or before its own position, so what lies behind a row's length is never read:

    row 0   p p p a a .  .  .      length 5, next token goes to slot 5
    row 1   p p p p p a  .  .      length 6
    row 2   p p a ? ? .  .  .      length 3; slots marked ? hold a chunk's padding, overwritten next
"""

import jax
import jax.numpy as jnp

from score_jax.model.families import ModelConfig

# ((key_BKSE, value_BKSE) for each layer)
Cache = tuple[tuple[jax.Array, jax.Array], ...]


def empty(config: ModelConfig, rows: int, slots: int, dtype: str) -> Cache:
    """A cache of zeros for `rows` rows of at most `slots` tokens."""
    shape = (rows, config.kv_heads, slots, config.head_width)
    return tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.layers))


def attend_cached(
    layer_cache: tuple[jax.Array, jax.Array],
    q_BNHE: jax.Array,
    k_BNKE: jax.Array,
    v_BNKE: jax.Array,
    position_BN: jax.Array,
    rows_B: jax.Array | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Writes new keys and values at their positions, then attends to everything up to them.

    Returns: out_BNHE and the layer's new cache. Source of grouped heads: arXiv 2305.13245.
    """
    b, n, h, e = q_BNHE.shape
    keys_BKSE, values_BKSE = layer_cache
    kv_heads, slots = keys_BKSE.shape[1:3]
    row_B1 = (jnp.arange(b) if rows_B is None else rows_B)[:, None]
    keys_BKSE = keys_BKSE.at[row_B1, :, position_BN].set(k_BNKE, mode="drop")
    values_BKSE = values_BKSE.at[row_B1, :, position_BN].set(v_BNKE, mode="drop")
    kept = (keys_BKSE, values_BKSE)
    if rows_B is not None:
        keys_BKSE, values_BKSE = keys_BKSE[rows_B], values_BKSE[rows_B]

    q_BNKGE = q_BNHE.reshape(b, n, kv_heads, h // kv_heads, e)
    score_BKGNS = jnp.einsum(
        "BNKGE,BKSE->BKGNS", q_BNKGE, keys_BKSE, preferred_element_type=jnp.float32
    )
    visible_BNS = jnp.arange(slots) <= position_BN[..., None]
    score_BKGNS = jnp.where(visible_BNS[:, None, None], score_BKGNS * e**-0.5, -jnp.inf)
    weight_BKGNS = jax.nn.softmax(score_BKGNS, axis=-1).astype(values_BKSE.dtype)
    out_BNKGE = jnp.einsum("BKGNS,BKSE->BNKGE", weight_BKGNS, values_BKSE)
    return out_BNKGE.reshape(b, n, h, e), kept
