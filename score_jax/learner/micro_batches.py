"""A batch is learned from in parts: rows of like length together, each part as wide as it needs.

    Plan(parts, widths, shards)                  how many parts, of how many widths
    plan(memory, ...)                            the settings' plan, or the fastest
    accumulate(fn, rows, length_B, plan)         sums over the parts, and what is found per row

    rows  p p a a .  .  .  .       sorted, two parts,      p p a a |
          p p p a a  i  b  b       two widths (4 and 8):   p p p a |
          p p a i b  .  .  .                               p p a i b . . .
          p p p a .  .  .  .                               p p p a a i b b

The widths are a closed set, compiled into one program, and a part takes the narrowest that its rows
fit in: short rows do not pay for long ones, and no batch compiles anything. Rows that are split
over devices stay where they are: each device sorts its own and gives as many to every part.

Suffixes here: M parts, X devices, R rows of one of them.
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
# Of a part on a CPU. Below so many tokens, reading the weights and adding up gradients costs more
# than is saved; above so many activations of a layer's MLP, they leave the core's cache.
LEAST_TOKENS, CACHED_ACTIVATIONS = 1024, 2**20
LONG_ATTEMPT, WIDTHS = 64, 4  # tokens from which rows differ enough, and the widths they then get


@dataclasses.dataclass(frozen=True)
class Plan:
    """Static under jit."""

    parts: int = 1  # the rows are learned from in this many equal parts
    widths: int = 1  # that a part may have: so many equal steps up to the whole
    shards: int = 1  # devices that the rows are split over

    def columns(self, whole: int) -> tuple[int, ...]:
        """The widths that a part of rows of `whole` columns may have, ascending."""
        steps = (whole * (i + 1) / self.widths for i in range(self.widths))
        return tuple(sorted({min(whole, -int(-step // ROUND) * ROUND) for step in steps}))


def plan(
    memory: MemorySettings,
    model: ModelConfig,
    *,
    rows: int,
    columns: int,
    attempt_tokens: int,
    shards: int,
    platform: str,
) -> Plan:
    """What the settings say, and the fastest where they leave it open.

    Args:
      rows, columns: of a batch.
      attempt_tokens: the most that an attempt may have; long ones differ most in length.
      shards: devices that the rows are split over, of this platform.

    Raises: InputError if a device's rows cannot be split into as many parts.
    """
    if rows % (shards * max(1, memory.micro_batches)):
        raise InputError(
            f"{rows} rows of an update on {shards} devices (mesh data x fsdp) cannot be split into "
            f"config.memory.micro_batches={memory.micro_batches} equal parts of each device. Set "
            f"it to a divisor of {rows // shards}."
        )
    parts = memory.micro_batches or _fastest(rows // shards, columns, model, platform)
    differ = parts > 1 and attempt_tokens >= LONG_ATTEMPT
    return Plan(parts, memory.widths or (WIDTHS if differ else 1), shards)


def _fastest(rows: int, columns: int, model: ModelConfig, platform: str) -> int:
    """One part, but on a CPU as many as keep a layer's values in the core's cache."""
    if platform != "cpu":
        return 1
    fitting = max(LEAST_TOKENS, CACHED_ACTIVATIONS // model.mlp_width)
    possible = [n for n in range(1, rows + 1) if rows % n == 0]
    return min((n for n in possible if rows // n * columns <= fitting), default=rows)


def accumulate(
    fn: Callable[[Any], tuple[Any, Any]], rows: Any, length_B: jax.Array, plan: Plan
) -> tuple[Any, Any]:
    """fn over all parts of the rows.

    Args:
      fn: some rows -> (a tree of sums over them, a tree of arrays with their rows and columns).
      rows: tree of arrays [B, columns, ...]; those of fewer columns than the widest are narrowed
        when the part is narrower than they are.

    Returns: the sums added up, and the arrays of all rows in their order, 0 where a part was
      narrower.
    """
    if plan == Plan(shards=plan.shards):
        return fn(rows)
    columns = max(x.shape[1] for x in jax.tree.leaves(rows))
    widths = plan.columns(columns)
    order_XR = _order(length_B, plan, sort=len(widths) > 1)
    parts = jax.tree.map(lambda x_B: _split(x_B, order_XR, plan), rows)
    length_MR = _split(length_B, order_XR, plan)
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
    return sums, jax.tree.map(lambda x_MR: _join(x_MR, order_XR, plan), found_MR)


def _order(length_B: jax.Array, plan: Plan, *, sort: bool) -> jax.Array:
    """Which of its rows a device learns from first, second, …: [X, B / X]."""
    length_XR = length_B.reshape(plan.shards, -1)
    if sort:
        return jnp.argsort(length_XR, axis=1)
    return jnp.broadcast_to(jnp.arange(length_XR.shape[1]), length_XR.shape)


def _split(x_B: jax.Array, order_XR: jax.Array, plan: Plan) -> jax.Array:
    """[B, ...] to [parts, B / parts, ...]; every part has as many rows of each device."""
    x_XR = _take(x_B.reshape(plan.shards, -1, *x_B.shape[1:]), order_XR)
    x_XMR = x_XR.reshape(plan.shards, plan.parts, -1, *x_B.shape[1:])
    return jnp.swapaxes(x_XMR, 0, 1).reshape(plan.parts, -1, *x_B.shape[1:])


def _join(x_MR: jax.Array, order_XR: jax.Array, plan: Plan) -> jax.Array:
    """What `_split` took apart."""
    rest = x_MR.shape[2:]
    x_XMR = jnp.swapaxes(x_MR.reshape(plan.parts, plan.shards, -1, *rest), 0, 1)
    x_XR = _take(x_XMR.reshape(plan.shards, -1, *rest), jnp.argsort(order_XR, axis=1))
    return x_XR.reshape(-1, *rest)


def _take(x_XR: jax.Array, order_XR: jax.Array) -> jax.Array:
    return jax.vmap(lambda x_R, order_R: x_R[order_R])(x_XR, order_XR)


def _widen(x: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros behind the columns."""
    padding = [(0, 0)] * x.ndim
    padding[1] = (0, like.shape[1] - x.shape[1])
    return jnp.pad(x, padding)
