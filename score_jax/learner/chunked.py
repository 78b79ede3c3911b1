"""A loop over chunks of tokens that ends where the tokens end, with a gradient that recomputes.

    over_chunks(score, used, head, frozen, hidden_C, *others_C) -> outputs_C

`score(head, frozen, hidden, *others)` of chunk 0, 1, ... `used` - 1. jax differentiates no loop whose
length is data, so the gradient is written here: the same loop again, each chunk computed once more
and pulled back at once. Nothing of a chunk outlives it but its outputs and its share of the head's
gradient, which is summed in float32.
"""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_chunks(score, used: jax.Array, head, frozen, hidden_C: jax.Array, *others_C):
    """Outputs of all chunks on a leading axis; 0 for those from `used` on.

    Args:
      used: how many chunks to compute; the others' inputs get the gradient 0.
      head: a tree of params, with gradient; `frozen`, and `others_C`, without.
    """

    def add(i, outputs_C):
        outputs = score(head, frozen, *_at(i, (hidden_C, *others_C)))
        return jax.tree.map(lambda x_C, x: x_C.at[i].set(x), outputs_C, outputs)

    shapes = jax.eval_shape(score, head, frozen, *_at(0, (hidden_C, *others_C)))
    zeros_C = jax.tree.map(lambda x: jnp.zeros((len(hidden_C), *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, used, add, zeros_C)


def _forward(score, *arguments):
    return over_chunks(score, *arguments), arguments


def _backward(score, arguments, cotangents_C):
    used, head, frozen, hidden_C, *others_C = arguments

    def add(i, gradients):
        of_head, of_hidden_C = gradients

        def outputs(head, hidden):
            return score(head, frozen, hidden, *_at(i, others_C))

        _, pull_back = jax.vjp(outputs, head, hidden_C[i])
        more, of_hidden = pull_back(_at(i, cotangents_C))
        return jax.tree.map(jnp.add, of_head, more), of_hidden_C.at[i].set(of_hidden)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), head)
    of_head, of_hidden_C = jax.lax.fori_loop(0, used, add, (zeros, jnp.zeros_like(hidden_C)))
    of_head = jax.tree.map(lambda g, x: g.astype(x.dtype), of_head, head)
    return (None, of_head, None, of_hidden_C, *([None] * len(others_C)))


over_chunks.defvjp(_forward, _backward)


def _at(i, tree_C):
    return jax.tree.map(lambda x_C: x_C[i], tree_C)
