"""A frozen weight W and a trained difference of low rank: W + scale * A B.

A `LowRank` takes the place of W in params. `block.linear` computes x W + scale * (x A) B, so
that the gradient of A and B never needs the gradient of W. In float32 `transformer.for_decoding`
merges it into one weight, because a decode step would pay for two more products. The factors keep
the axes of W, so every kind of weight fits:

    query   W [D,H,E]   A [D,rank]     B [rank,H,E]
    output  W [H,E,D]   A [H,E,rank]   B [rank,D]

Source: LoRA, arXiv 2106.09685, section 4.1.
"""

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.structs import Params


class LowRank(flax.struct.PyTreeNode):
    """W, A and B of one layer, or of all layers stacked on a leading axis L."""

    base: jax.Array  # W. The first field: Linen checks a param's shape by its first leaf
    down: jax.Array  # A
    up: jax.Array  # B
    scale: float = flax.struct.field(pytree_node=False)


@jax.custom_vjp
def unrounded(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """The float32 product of matrices of another dtype; gradients are computed in that dtype."""
    return jnp.matmul(x_NI, w_IO, preferred_element_type=jnp.float32)


def _backward(kept, gradient_NO):
    x_NI, w_IO = kept
    gradient_NO = gradient_NO.astype(x_NI.dtype)  # or these would be float32 products
    return gradient_NO @ w_IO.T, x_NI.T @ gradient_NO


unrounded.defvjp(lambda x, w: (unrounded(x, w), (x, w)), _backward)


def merged(params: Params) -> Params:
    """One layer's params with every LowRank merged into one weight, in W's dtype.

    Map it over a leading axis L for stacked layers."""

    def merge(w):
        if not isinstance(w, LowRank):
            return w
        # In fp32 whatever W's dtype, so that W + difference is rounded once. "highest", because
        # TPUs by default multiply in bf16.
        down, up = w.down.astype(jnp.float32), w.up.astype(jnp.float32)
        difference = jnp.tensordot(down, up, axes=1, precision="highest")
        return (w.base.astype(jnp.float32) + w.scale * difference).astype(w.base.dtype)

    return jax.tree.map(merge, params, is_leaf=lambda w: isinstance(w, LowRank))
