"""A sum over tokens, computed in chunks. Its gradient is computed in the forward pass.

    values(loop, head, frozen, mask_BN, hidden_BND, *others_BN) -> sum, outputs_BN
    total(...)                                                     the same, with a gradient

`loop.score(head, frozen, mask, hidden, *others)` takes some columns of all rows, and returns their
part of the sum and outputs per token. `total` takes the gradient of a chunk while its logits exist,
so logits are computed once. Three things of a chunk are kept: its outputs, its gradient with
respect to the hidden states, and its part of the head's gradient, which is summed in float32. The
backward pass only scales the two gradients. Source of the idea: Liger kernels, arXiv 2410.10989,
section 3.2.

The loop ends where the longest row ends. On a mesh, devices loop over their rows together. Each
holds the head for its own share of the vocabulary, in the dtype of the products, and the gradient
of that share: no device ever holds a whole head. `score` handles the split (split_vocab.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from score_jax.model import transformer
from score_jax.runtime import sharding
from score_jax.structs import Params


@dataclasses.dataclass(frozen=True)
class Loop:
    """What a loop is compiled for."""

    score: Callable[..., tuple[jax.Array, Any]]  # some columns of some rows -> their sum, outputs
    tokens: int  # of a chunk on one device; at least one column of its rows
    dtype: str  # of the head in `score`
    mesh: Mesh | None = None  # over which the rows are split
    axis: str = ""  # of the mesh, over which the vocabulary of `score` is split


def values(
    loop: Loop,
    head: Params,
    frozen: Params | None,
    mask_BN: jax.Array,
    hidden_BND: jax.Array,
    *others_BN: Any,
) -> tuple[jax.Array, Any]:
    """Sum and outputs of all columns up to the last one in the mask; later outputs are 0.

    It has no gradient: jax raises an error if one is asked for, as the loop's length is data.

    Args:
      head: as `transformer.head` takes it from the params.
      frozen: the head of another model, or None.
      others_BN: further inputs of `score`: trees of arrays [B, N, ...].
    """

    def visit(head, frozen, *chunk):
        summed, outputs = loop.score(head, frozen, *chunk)
        return (summed, None), outputs

    inputs_BN = (mask_BN, hidden_BND, *others_BN)
    (summed, _), outputs_BN = _over(loop, visit, head, frozen, inputs_BN, learns=False)
    return summed, outputs_BN


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def total(
    loop: Loop,
    head: Params,
    frozen: Params | None,
    mask_BN: jax.Array,
    hidden_BND: jax.Array,
    *others_BN: Any,
) -> tuple[jax.Array, Any]:
    """As `values`, and the sum has a gradient with respect to `head` and `hidden_BND`.

    It has none with respect to the other arguments, and the outputs have none.
    """
    return values(loop, head, frozen, mask_BN, hidden_BND, *others_BN)


def _forward(loop: Loop, head, frozen, mask_BN, hidden_BND, *others_BN):
    def visit(head, frozen, mask, hidden, *others):
        def score(head, hidden):
            return loop.score(head, frozen, mask, hidden, *others)

        value_and_grad = jax.value_and_grad(score, argnums=(0, 1), has_aux=True)
        (summed, outputs), (of_head, of_hidden) = value_and_grad(head, hidden)
        of_head = jax.tree.map(lambda g: g.astype(jnp.float32), of_head)
        return (summed, of_head), (outputs, of_hidden)

    inputs_BN = (mask_BN, hidden_BND, *others_BN)
    sums, (outputs_BN, of_hidden_BND) = _over(loop, visit, head, frozen, inputs_BN, learns=True)
    summed, of_head = sums
    of_head = jax.tree.map(lambda g, x: g.astype(x.dtype), of_head, head)
    return (summed, outputs_BN), (of_head, of_hidden_BND, len(others_BN))


def _backward(loop: Loop, kept, cotangents):
    del loop
    of_head, of_hidden_BND, others = kept
    above, _ = cotangents
    scaled = jax.tree.map(lambda g: (above * g).astype(g.dtype), (of_head, of_hidden_BND))
    return (scaled[0], None, None, scaled[1], *[None] * others)


total.defvjp(_forward, _backward)


# Chunks


def _over(loop: Loop, visit, head: Params, frozen: Params | None, inputs_BN, *, learns: bool):
    """Loops visit(head, frozen, *chunk) -> ((sum, head's gradient or None), outputs) over chunks.

    learns: whether `visit` returns a gradient of the head.
    Returns: the sums over all chunks and devices, and the outputs of all columns.
    """

    def on_device(head, frozen, *inputs_BN):
        ((name, x),) = head.items()
        vocabulary = x.shape[_axis(name, "vocab")]
        head, frozen = _by_vocabulary(head, loop), _by_vocabulary(frozen, loop)
        inputs_C, size = _chunks(inputs_BN, loop)

        def add(i, carry):
            more, found = visit(head, frozen, *_at(i, inputs_C))
            sums, found_C = carry
            sums = jax.tree.map(jnp.add, sums, more)
            return sums, jax.tree.map(lambda x_C, x: x_C.at[i].set(x), found_C, found)

        sums, found = jax.eval_shape(visit, head, frozen, *_at(0, inputs_C))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums)
        chunks = len(inputs_C[0])
        zeros_C = jax.tree.map(lambda x: jnp.zeros((chunks, *x.shape), x.dtype), found)
        mask_BN = inputs_BN[0]
        used = _used(mask_BN, size, loop)
        (summed, of_head), found_C = jax.lax.fori_loop(0, used, add, (zeros, zeros_C))
        found_BN = jax.tree.map(lambda x_C: _joined(x_C, mask_BN.shape[1]), found_C)
        summed = jax.lax.psum(summed, sharding.BATCH_AXES) if loop.mesh else summed
        return (summed, _by_width(of_head, vocabulary, loop)), found_BN

    if not loop.mesh:
        return on_device(head, frozen, *inputs_BN)
    # XLA itself partitions what is split over `tensor`.
    head_specs, rows = _specs(head), PartitionSpec(sharding.BATCH_AXES)
    return jax.shard_map(
        on_device,
        mesh=loop.mesh,
        in_specs=(head_specs, _specs(frozen), *[rows] * len(inputs_BN)),
        out_specs=((PartitionSpec(), head_specs if learns else None), rows),
        axis_names=set(sharding.BATCH_AXES),
        check_vma=False,  # loops begin with zeros, which are not marked as varying
    )(head, frozen, *inputs_BN)


def _chunks(inputs_BN: Any, loop: Loop) -> tuple[Any, int]:
    """Every [B, N, ...] as [chunks, B, size, ...], right-padded with zeros; and the size."""
    rows, columns = inputs_BN[0].shape[:2]
    size = min(max(1, loop.tokens // rows), columns)

    def split(x_BN: jax.Array) -> jax.Array:
        padding = [(0, 0), (0, -columns % size)] + [(0, 0)] * (x_BN.ndim - 2)
        x_BCN = jnp.pad(x_BN, padding).reshape(rows, -1, size, *x_BN.shape[2:])
        return jnp.moveaxis(x_BCN, 1, 0)

    return jax.tree.map(split, tuple(inputs_BN)), size


def _joined(x_C: jax.Array, columns: int) -> jax.Array:
    """The inverse of `_chunks`."""
    x_BCN = jnp.moveaxis(x_C, 0, 1)
    return x_BCN.reshape(len(x_BCN), -1, *x_C.shape[3:])[:, :columns]


def _used(mask_BN: jax.Array, size: int, loop: Loop) -> jax.Array:
    """How many chunks a device computes: up to the last column that one of its rows needs."""
    longest = jnp.max(jnp.sum(mask_BN, axis=1))
    if loop.axis or (loop.mesh and loop.mesh.shape["tensor"] > 1):
        # A chunk's logits are split: all devices that hold a part must compute the same chunks.
        longest = jax.lax.pmax(longest, sharding.BATCH_AXES)
    return -(-longest // size)


def _at(i, tree_C):
    return jax.tree.map(lambda x_C: x_C[i], tree_C)


# Devices


def _specs(head: Params | None):
    """How the head's params are split over the batch axes of the mesh."""
    if head is None:
        return None
    return {name: PartitionSpec(*[None] * _axis(name, "width"), "fsdp") for name in head}


def _axis(name: str, logical: str) -> int:
    return transformer.AXES[name].index(logical)


def _by_vocabulary(head: Params | None, loop: Loop) -> Params | None:
    """The head, cast. On a mesh: all of its width, for one share of the zero-padded vocabulary."""
    if head is None:
        return None
    head = {name: x.astype(loop.dtype) for name, x in head.items()}
    if not loop.mesh or not loop.axis:
        return head
    parts = loop.mesh.shape[loop.axis]

    def exchanged(name: str, x: jax.Array) -> jax.Array:
        axis = _axis(name, "vocab")
        padding = [(0, -size % parts if i == axis else 0) for i, size in enumerate(x.shape)]
        return jax.lax.all_to_all(
            jnp.pad(x, padding), loop.axis, axis, _axis(name, "width"), tiled=True
        )

    return {name: exchanged(name, x) for name, x in head.items()}


def _by_width(of_head: Params | None, vocabulary: int, loop: Loop) -> Params | None:
    """Back to a share of the width, summed over the devices that have other rows."""
    if of_head is None or not loop.mesh:
        return of_head

    def exchanged(name: str, x: jax.Array) -> jax.Array:
        axis = _axis(name, "vocab")
        x = jax.lax.all_to_all(x, loop.axis, _axis(name, "width"), axis, tiled=True)
        return jax.lax.slice_in_dim(x, 0, vocabulary, axis=axis)

    summed = jax.lax.psum(of_head, "data")
    return {name: exchanged(name, x) for name, x in summed.items()} if loop.axis else summed
