"""Micro-batches: parts of a batch with rows of similar length, each part as wide as it needs.

    Split(parts, widths, shards)              the number of parts, and of widths they may have
    choose(memory, ...)                       the Split that settings ask for, or the fastest
    accumulate(fn, rows, length_B, split)     sums over the parts, and results per row

    rows  p p a a .  .  .  .       sorted, two parts,      p p a a |
          p p p a a  i  b  b       two widths (4 and 8):   p p p a |
          p p a i b  .  .  .                               p p a i b . . .
          p p p a .  .  .  .                               p p p a a i b b

The widths are a fixed set, compiled into one program. A part has the narrowest width that its rows
fit in: short rows do not pay for long ones, and no batch recompiles. Rows that are split over
devices stay there: each device sorts its own rows and puts the same number into every part.

Suffixes here: M parts, X devices, R rows of a device or of a part.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.config.settings import MemorySettings
from score_jax.model.families import ModelConfig
from score_jax.problem import InputError

ROUND = 16  # columns; widths are multiples of it
# Bounds of a part on a CPU. With fewer tokens, reading the weights and adding gradients costs more
# than a part saves; with more activations of a layer's MLP, they do not fit into the core's cache.
LEAST_TOKENS, CACHED_ACTIVATIONS = 1024, 2**20
LONG_ATTEMPT, WIDTHS = 64, 4  # tokens of an attempt from which lengths differ enough for WIDTHS


@dataclasses.dataclass(frozen=True)
class Split:
    """Static under jit."""

    parts: int = 1  # number of equal parts of the rows
    widths: int = 1  # number of widths that a part may have: equal steps up to the full width
    shards: int = 1  # devices over which the rows are split

    def columns(self, whole: int) -> tuple[int, ...]:
        """The widths that a part may have if rows have `whole` columns, ascending."""
        steps = (whole * (i + 1) / self.widths for i in range(self.widths))
        return tuple(sorted({min(whole, -int(-step // ROUND) * ROUND) for step in steps}))


def choose(
    memory: MemorySettings,
    model: ModelConfig,
    *,
    rows: int,
    columns: int,
    attempt_tokens: int,
    shards: int,
    platform: str,
) -> Split:
    """What the settings ask for; the fastest where they are 0.

    Args:
      rows, columns: of a batch.
      attempt_tokens: the limit of an attempt; long attempts differ most in length.
      shards: devices of this platform over which the rows are split.

    Raises: InputError if a device's rows cannot be split into that many parts.
    """
    if rows % (shards * max(1, memory.micro_batches)):
        raise InputError(
            f"{rows} rows of an update on {shards} devices (mesh data x fsdp) cannot be split into "
            f"config.memory.micro_batches={memory.micro_batches} equal parts of each device. Set "
            f"it to a divisor of {rows // shards}."
        )
    parts = memory.micro_batches or _fastest(rows // shards, columns, model, platform)
    differ = parts > 1 and attempt_tokens >= LONG_ATTEMPT
    return Split(parts, memory.widths or (WIDTHS if differ else 1), shards)


def _fastest(rows: int, columns: int, model: ModelConfig, platform: str) -> int:
    """One part; on a CPU as many as keep a layer's values in the core's cache."""
    if platform != "cpu":
        return 1
    fitting = max(LEAST_TOKENS, CACHED_ACTIVATIONS // model.mlp_width)
    possible = [n for n in range(1, rows + 1) if rows % n == 0]
    return min((n for n in possible if rows // n * columns <= fitting), default=rows)


def accumulate(
    fn: Callable[[Any], tuple[Any, Any]], rows: Any, length_B: jax.Array, split: Split
) -> tuple[Any, Any]:
    """Applies fn to all parts of the rows.

    Args:
      fn: some rows -> (a tree of sums over them, a tree of arrays with their rows and columns).
      rows: tree of arrays [B, columns, ...], which may differ in columns; an array is narrowed if
        the part is narrower than it.

    Returns: the sums added up, and the arrays of all rows in their order, 0 where a part was
      narrower.
    """
    if split == Split(shards=split.shards):
        return fn(rows)
    columns = max(x.shape[1] for x in jax.tree.leaves(rows))
    widths = split.columns(columns)
    order_XR = _order(length_B, split, sort=len(widths) > 1)
    parts = jax.tree.map(lambda x_B: _into_parts(x_B, order_XR, split), rows)
    length_MR = _into_parts(length_B, order_XR, split)
    whole = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], parts))

    def of_width(width: int):
        def narrow(part):
            sums, found = fn(jax.tree.map(lambda x: x[:, :width], part))
            return sums, jax.tree.map(_widen, found, whole[1])

        return narrow

    def add(sums, part_and_length):
        part, length_R = part_and_length
        index = jnp.searchsorted(jnp.array(widths), jnp.max(length_R))
        more, found = jax.lax.switch(index, [of_width(width) for width in widths], part)
        return jax.tree.map(jnp.add, sums, more), found

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), whole[0])
    sums, found_MR = jax.lax.scan(add, zeros, (parts, length_MR))
    return sums, jax.tree.map(lambda x_MR: _joined(x_MR, order_XR, split), found_MR)


def _order(length_B: jax.Array, split: Split, *, sort: bool) -> jax.Array:
    """The order in which a device puts its rows into parts: [X, B / X]."""
    length_XR = length_B.reshape(split.shards, -1)
    if sort:
        return jnp.argsort(length_XR, axis=1)
    return jnp.broadcast_to(jnp.arange(length_XR.shape[1]), length_XR.shape)


def _into_parts(x_B: jax.Array, order_XR: jax.Array, split: Split) -> jax.Array:
    """[B, ...] to [parts, B / parts, ...]; a part has the same number of rows of each device."""
    x_XR = _take(x_B.reshape(split.shards, -1, *x_B.shape[1:]), order_XR)
    x_XMR = x_XR.reshape(split.shards, split.parts, -1, *x_B.shape[1:])
    return jnp.swapaxes(x_XMR, 0, 1).reshape(split.parts, -1, *x_B.shape[1:])


def _joined(x_MR: jax.Array, order_XR: jax.Array, split: Split) -> jax.Array:
    """The inverse of `_into_parts`."""
    rest = x_MR.shape[2:]
    x_XMR = jnp.swapaxes(x_MR.reshape(split.parts, split.shards, -1, *rest), 0, 1)
    x_XR = _take(x_XMR.reshape(split.shards, -1, *rest), jnp.argsort(order_XR, axis=1))
    return x_XR.reshape(-1, *rest)


def _take(x_XR: jax.Array, order_XR: jax.Array) -> jax.Array:
    return jax.vmap(lambda x_R, order_R: x_R[order_R])(x_XR, order_XR)


def _widen(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Pads the columns with zeros on the right."""
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, like.shape[1] - x.shape[1])
    return jnp.pad(x, padding)
