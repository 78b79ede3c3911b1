"""Attention over whole rows without a cache, and the soft-cap; cache.py attends to a cache.

    over_rows(q, k, v, window=..., softcap=...)   causal, within a window, with bounded scores
    soft_cap(x, cap)                              cap * tanh(x / cap)

Plain causal attention is left to jax.nn.dot_product_attention. It takes no soft-cap, so that one is
written out. A device's own kernel may take the place of both.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from score_jax.model.kernels import KERNELS
from score_jax.sharding import BATCH_AXES, RULES


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
    """Each token attends to itself and what is before it in its row. Returns: out_BTHE.

    window: scalar; tokens that one sees, itself included, 0 for all. It may be traced, so that
        layers of both kinds are one program. None: all, and no mask is made.
    windows: the values that `window` may have, which a kernel is compiled for.
    kernel: or a key of KERNELS.
    mesh: that rows and heads are split over; XLA sees that by itself, for its own attention.
    """
    if kernel != "xla":
        attend = functools.partial(KERNELS[kernel], softcap=softcap)
        return _by_kernel(attend, q_BTHE, k_BTKE, v_BTKE, window, windows, mesh)
    if window is None and not softcap:
        return jax.nn.dot_product_attention(q_BTHE, k_BTKE, v_BTKE, is_causal=True)
    visible_TT = _visible(q_BTHE.shape[1], window)
    if not softcap:
        mask_11TT = visible_TT[None, None]
        return jax.nn.dot_product_attention(q_BTHE, k_BTKE, v_BTKE, mask=mask_11TT)
    b, t, h, e = q_BTHE.shape
    kv_heads = k_BTKE.shape[2]
    q_BTKGE = q_BTHE.reshape(b, t, kv_heads, h // kv_heads, e) * e**-0.5
    score_BKGTS = jnp.einsum(
        "BTKGE,BSKE->BKGTS", q_BTKGE, k_BTKE, preferred_element_type=jnp.float32
    )
    score_BKGTS = jnp.where(visible_TT, soft_cap(score_BKGTS, softcap), -jnp.inf)
    weight_BKGTS = jax.nn.softmax(score_BKGTS, axis=-1).astype(v_BTKE.dtype)  # in fp32 until here
    return jnp.einsum("BKGTS,BSKE->BTKGE", weight_BKGTS, v_BTKE).reshape(b, t, h, e)


def _by_kernel(attend, q_BTHE, k_BTKE, v_BTKE, window, windows, mesh: Mesh | None) -> jax.Array:
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
        check_vma=False,  # kernels do not say over which axes their results vary
    )(index, q_BTHE, k_BTKE, v_BTKE)


def _visible(columns: int, window: jax.Array | None) -> jax.Array:
    """[T, T] bool: whether the token of a row sees that of a column. With window 2:

    token 0   x . .
    token 1   x x .
    token 2   . x x
    """
    age_TT = jnp.arange(columns)[:, None] - jnp.arange(columns)
    visible_TT = age_TT >= 0
    if window is None:
        return visible_TT
    return visible_TT & ((age_TT < window) | (window == 0))
