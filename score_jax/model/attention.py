"""Attention over whole rows without a cache, and the soft-cap; cache.py attends to a cache.

    over_rows(q, k, v, window=..., softcap=...)   causal, within a window, with bounded scores
    soft_cap(x, cap)                              cap * tanh(x / cap)

Written out because jax.nn.dot_product_attention cannot bound scores and makes more passes over
them: on a CPU an update of the benchmark's `real` takes 0.95 of the time that it takes with that
function. A device's own kernel may replace it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from score_jax.model.kernels import KERNELS
from score_jax.runtime.sharding import BATCH_AXES, RULES

# Queries attend in up to BLOCKS blocks of at least LEAST_BLOCK columns; a block skips later keys.
# On a CPU an update of `real` takes 0.98 to 0.996 of the time that it takes in one block.
BLOCKS, LEAST_BLOCK, ROUND = 4, 64, 16


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """Bounds x to ±cap smoothly; x itself where cap is 0. Source: Gemma 2, arXiv 2408.00118."""
    return cap * jnp.tanh(x / cap) if cap else x


def over_rows(
    q_BTHE: jax.Array,
    k_BTKE: jax.Array,
    v_BTKE: jax.Array,
    *,
    window: jax.Array | None = None,
    softcap: float = 0.0,
    windows: tuple[int, ...] = (),
    kernel: str = "xla",
    mesh: Mesh | None = None,
) -> jax.Array:
    """Each token attends to itself and the tokens before it in its row. Returns: out_BTHE.

    q_BTHE: scaled, so that a score is the product of a query and a key.
    window: scalar; how many tokens a token sees, itself included; 0 for all. It may be traced, so
        that layers of both kinds are one program. None: all, as 0 but without a comparison.
    windows: the values that `window` may have; a kernel is compiled for each.
    kernel: a key of ATTENTIONS.
    mesh: over which rows and heads are split; only kernels need it.
    """
    return ATTENTIONS[kernel](
        q_BTHE, k_BTKE, v_BTKE, window=window, softcap=softcap, windows=windows, mesh=mesh
    )


def _by_xla(q_BTHE, k_BTKE, v_BTKE, *, window, softcap: float, windows, mesh) -> jax.Array:
    del windows, mesh
    b, t, h, e = q_BTHE.shape
    kv_heads = k_BTKE.shape[2]
    q_BTKGE = q_BTHE.reshape(b, t, kv_heads, h // kv_heads, e)
    q_BKGTE = q_BTKGE.transpose(0, 2, 3, 1, 4)
    k_BKSE, v_BKSE = jnp.swapaxes(k_BTKE, 1, 2), jnp.swapaxes(v_BTKE, 1, 2)
    visible_TT = _visible(t, window)
    outs = []
    for first, last in blocks(t):
        seen = (k_BKSE[:, :, :last], v_BKSE[:, :, :last], visible_TT[first:last, :last])
        outs.append(_attend(q_BKGTE[:, :, :, first:last], *seen, softcap))
    out_BKGTE = jnp.concatenate(outs, axis=3)
    return out_BKGTE.transpose(0, 3, 1, 2, 4).reshape(b, t, h, e).astype(v_BTKE.dtype)


def blocks(columns: int) -> list[tuple[int, int]]:
    """First and last column of each block of queries; four blocks skip 3/8 of all scores."""
    size = max(LEAST_BLOCK, -(-columns // (BLOCKS * ROUND)) * ROUND)
    return [(first, min(first + size, columns)) for first in range(0, columns, size)]


def _attend(q_BKGTE, k_BKSE, v_BKSE, visible_TS, softcap: float) -> jax.Array:
    """A block of queries attends to the keys that any of them sees. Returns: out_BKGTE, float32."""
    b, kv_heads, groups, _, e = q_BKGTE.shape
    # The queries of all heads that share keys are one matrix, which no product has to copy.
    q_BKNE = q_BKGTE.reshape(b, kv_heads, -1, e)
    score_BKNS = jnp.einsum("BKNE,BKSE->BKNS", q_BKNE, k_BKSE, preferred_element_type=jnp.float32)
    visible_NS = jnp.tile(visible_TS, (groups, 1))
    score_BKNS = jnp.where(visible_NS, soft_cap(score_BKNS, softcap), -jnp.inf)
    top_BKN1 = jax.lax.stop_gradient(jnp.max(score_BKNS, axis=-1, keepdims=True))
    weight_BKNS = jnp.exp(score_BKNS - top_BKN1)
    # Divided by the sum of weights after the product: it has E columns, the weights have S.
    out_BKNE = jnp.einsum(
        "BKNS,BKSE->BKNE",
        weight_BKNS.astype(v_BKSE.dtype),
        v_BKSE,
        preferred_element_type=jnp.float32,
    )
    out_BKNE /= jnp.sum(weight_BKNS, axis=-1, keepdims=True)
    return out_BKNE.reshape(q_BKGTE.shape)


def _by_kernel(
    kernel, q_BTHE, k_BTKE, v_BTKE, *, window, softcap: float, windows, mesh: Mesh | None
) -> jax.Array:
    attend = functools.partial(kernel, softcap=softcap)
    sizes = sorted(set(windows)) if window is not None else [0]

    def on_device(index, *qkv):
        branches = [functools.partial(attend, window=size) for size in sizes]
        return jax.lax.switch(index, branches, *qkv)

    index = jnp.searchsorted(jnp.array(sizes), 0 if window is None else window)
    if mesh is None or mesh.size == 1:
        return on_device(index, q_BTHE, k_BTKE, v_BTKE)
    heads = PartitionSpec(BATCH_AXES, None, RULES["heads"], None)
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), heads, heads, heads),
        out_specs=heads,
        check_vma=False,  # kernels do not state over which axes their results vary
    )(index, q_BTHE, k_BTKE, v_BTKE)


def _visible(columns: int, window: jax.Array | None) -> jax.Array:
    """[T, T] bool: whether the token of a row sees the token of a column. With window 2:

    token 0   x . .
    token 1   x x .
    token 2   . x x
    """
    age_TT = jnp.arange(columns)[:, None] - jnp.arange(columns)
    visible_TT = age_TT >= 0
    if window is None:
        return visible_TT
    return visible_TT & ((age_TT < window) | (window == 0))


ATTENTIONS: dict[str, Callable[..., jax.Array]] = {
    "xla": _by_xla,
    **{name: functools.partial(_by_kernel, kernel) for name, kernel in KERNELS.items()},
}
