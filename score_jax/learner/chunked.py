"""A loop over chunks of tokens that ends where the tokens end, with a gradient that recomputes.

    over_chunks(loop, head, frozen, mask_BN, hidden_BND, *others_BN) -> outputs_BN

`loop.score(head, frozen, hidden, *others)` of some columns of all rows at a time. A loop whose
length is data has no derivative in jax, so the gradient is written here: the same loop again, each
chunk computed once more and pulled back at once. Nothing of a chunk outlives it but its outputs and
its share of the head's gradient, which is summed in float32.

On a mesh every device loops over its own rows: it gathers the head once, in the dtype of the
products, and what its chunks add up to is added to the other devices' once, at the end.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from score_jax import sharding
from score_jax.model import transformer
from score_jax.structs import Params


@dataclasses.dataclass(frozen=True)
class Loop:
    """What a loop is compiled for."""

    score: Callable[..., tuple[jax.Array, ...]]  # some columns of some rows -> values of the same
    tokens: int  # of a chunk on one device; at least one column of its rows
    dtype: str  # of the head in `score`
    mesh: Mesh | None = None  # that the rows are split over


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def over_chunks(
    loop: Loop,
    head: Params,
    frozen: Params | None,
    mask_BN: jax.Array,
    hidden_BND: jax.Array,
    *others_BN: jax.Array,
) -> tuple[jax.Array, ...]:
    """`score` of all columns up to the last one that is in the mask; 0 behind.

    Args:
      head: as `transformer.head` takes it from the params; it and the hidden states get gradients.
      frozen: another one, without gradient, or None.
      others_BN: further inputs of `score`, without gradient.
    """

    def on_device(head, frozen, mask_BN, *inputs_BN):
        head, frozen = _gathered(head, loop), _gathered(frozen, loop)
        inputs_C, size = _chunks(inputs_BN, loop)

        def add(i, outputs_C):
            outputs = loop.score(head, frozen, *_at(i, inputs_C))
            return jax.tree.map(lambda x_C, x: x_C.at[i].set(x), outputs_C, outputs)

        shapes = jax.eval_shape(loop.score, head, frozen, *_at(0, inputs_C))
        zeros_C = jax.tree.map(lambda x: jnp.zeros((len(inputs_C[0]), *x.shape), x.dtype), shapes)
        outputs_C = jax.lax.fori_loop(0, _used(mask_BN, size, loop), add, zeros_C)
        return jax.tree.map(lambda x_C: _joined(x_C, mask_BN.shape[1]), outputs_C)

    arguments = (head, frozen, mask_BN, hidden_BND, *others_BN)
    specs = (_specs(head), _specs(frozen), *[_ROWS] * (len(arguments) - 2))
    return _mapped(on_device, loop, specs, _ROWS)(*arguments)


def _forward(loop: Loop, *arguments):
    return over_chunks(loop, *arguments), arguments


def _backward(loop: Loop, arguments, cotangents_BN):
    head, frozen, mask_BN, hidden_BND, *others_BN = arguments

    def on_device(head, frozen, mask_BN, cotangents_BN, *inputs_BN):
        head, frozen = _gathered(head, loop), _gathered(frozen, loop)
        (hidden_C, *others_C), size = _chunks(inputs_BN, loop)
        cotangents_C, _ = _chunks(cotangents_BN, loop)

        def add(i, gradients):
            of_head, of_hidden_C = gradients

            def outputs(head, hidden):
                return loop.score(head, frozen, hidden, *_at(i, others_C))

            _, pull_back = jax.vjp(outputs, head, hidden_C[i])
            more, of_hidden = pull_back(_at(i, cotangents_C))
            return jax.tree.map(jnp.add, of_head, more), of_hidden_C.at[i].set(of_hidden)

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), head)
        start = (zeros, jnp.zeros_like(hidden_C))
        of_head, of_hidden_C = jax.lax.fori_loop(0, _used(mask_BN, size, loop), add, start)
        return _scattered(of_head, loop), _joined(of_hidden_C, mask_BN.shape[1])

    specs = (_specs(head), _specs(frozen), *[_ROWS] * (len(arguments) - 1))
    of_head, of_hidden_BND = _mapped(on_device, loop, specs, (_specs(head), _ROWS))(
        head, frozen, mask_BN, cotangents_BN, hidden_BND, *others_BN
    )
    of_head = jax.tree.map(lambda g, x: g.astype(x.dtype), of_head, head)
    return (of_head, None, None, of_hidden_BND, *([None] * len(others_BN)))


over_chunks.defvjp(_forward, _backward)


# Chunks


def _chunks(inputs_BN: Any, loop: Loop) -> tuple[Any, int]:
    """Every [B, N, ...] as [chunks, B, size, ...], padded with zeros behind, and the size."""
    rows, columns = inputs_BN[0].shape[:2]
    size = min(max(1, loop.tokens // rows), columns)

    def split(x_BN: jax.Array) -> jax.Array:
        padding = [(0, 0), (0, -columns % size)] + [(0, 0)] * (x_BN.ndim - 2)
        x_BCN = jnp.pad(x_BN, padding).reshape(rows, -1, size, *x_BN.shape[2:])
        return jnp.moveaxis(x_BCN, 1, 0)

    return jax.tree.map(split, tuple(inputs_BN)), size


def _joined(x_C: jax.Array, columns: int) -> jax.Array:
    """What `_chunks` took apart."""
    x_BCN = jnp.moveaxis(x_C, 0, 1)
    return x_BCN.reshape(len(x_BCN), -1, *x_C.shape[3:])[:, :columns]


def _used(mask_BN: jax.Array, size: int, loop: Loop) -> jax.Array:
    """How many chunks a device computes: up to the last column that one of its rows needs."""
    longest = jnp.max(jnp.sum(mask_BN, axis=1))
    if loop.mesh and loop.mesh.shape["tensor"] > 1:
        # A chunk's logits are split, and those who hold them must come to the same chunks.
        longest = jax.lax.pmax(longest, sharding.BATCH_AXES)
    return -(-longest // size)


def _at(i, tree_C):
    return jax.tree.map(lambda x_C: x_C[i], tree_C)


# Devices

_ROWS = PartitionSpec(sharding.BATCH_AXES)


def _mapped(on_device, loop: Loop, in_specs, out_specs):
    """`on_device` for the rows of each device; what is split over `tensor` is left to XLA."""
    if not loop.mesh:
        return on_device
    return jax.shard_map(
        on_device,
        mesh=loop.mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=set(sharding.BATCH_AXES),
        check_vma=False,  # loops begin with zeros, which do not say that they vary
    )


def _width_axis(name: str) -> int:
    return transformer.AXES[name].index("width")


def _specs(head: Params | None):
    """How the head's params lie on the axes that rows are split over."""
    if head is None:
        return None
    return {name: PartitionSpec(*[None] * _width_axis(name), "fsdp") for name in head}


def _gathered(head: Params | None, loop: Loop) -> Params | None:
    """The whole width, cast."""
    if head is None:
        return None
    head = {name: x.astype(loop.dtype) for name, x in head.items()}
    if not loop.mesh:
        return head
    return {
        name: jax.lax.all_gather(x, "fsdp", axis=_width_axis(name), tiled=True)
        for name, x in head.items()
    }


def _scattered(of_head: Params, loop: Loop) -> Params:
    """The sum over devices, each with its share of the width."""
    if not loop.mesh:
        return of_head
    summed = {
        name: jax.lax.psum_scatter(x, "fsdp", scatter_dimension=_width_axis(name), tiled=True)
        for name, x in of_head.items()
    }
    return jax.lax.psum(summed, "data")
