"""Logits to (token, log-prob), with one uniform random number per row.

The search of the inverse CDF has two levels: sums of blocks of the vocabulary, then one block.
"""

import functools

import jax
import jax.numpy as jnp

from score_jax.rl.policy import Policy, allow, distort

BLOCK = 128  # vocabulary entries per block of the search


def sample(
    logits_BV: jax.Array,
    uniform_B: jax.Array,
    policy: Policy,
    split_over: str = "",
    greedy: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row.

    Args:
      uniform_B: in [0, 1), one per row; unused when greedy.
      split_over: the mesh axis over which the vocabulary is split, in order; every device returns
        the same. Truncation gathers the logits; without it, devices exchange only sums of blocks.
      greedy: true, a scalar, takes the likeliest token as a temperature of 0 would; None: false.

    Returns: token_B int32 and logp_B float32, the log-prob under `policy` (0 when greedy: a
    deterministic choice has probability one).
    """
    logits_BV = allow(logits_BV, policy, split_over)
    if split_over and policy.truncates:
        logits_BV = jax.lax.all_gather(logits_BV, split_over, axis=1, tiled=True)
        split_over = ""
    likeliest = functools.partial(_likeliest, split_over=split_over)
    if policy.temperature == 0.0:
        return likeliest(logits_BV)
    draw = functools.partial(_draw, uniform_B=uniform_B, policy=policy, split_over=split_over)
    if greedy is None:
        return draw(logits_BV)
    return jax.lax.cond(greedy, likeliest, draw, logits_BV)


def _draw(
    logits_BV: jax.Array, uniform_B: jax.Array, policy: Policy, split_over: str
) -> tuple[jax.Array, jax.Array]:
    distorted_BV = distort(logits_BV, policy)
    top_B1 = jnp.max(distorted_BV, axis=-1, keepdims=True)
    if split_over:
        top_B1 = jax.lax.pmax(top_B1, split_over)
    # Only the exponentials of the logits are kept: XLA:CPU fuses them with the product, both levels
    # of the search read them, and a log-prob is the logarithm of one, exact for every token that
    # can be drawn.
    weight_BV = jnp.exp(distorted_BV - top_B1)
    vocabulary = weight_BV.shape[-1]
    padded_BV = jnp.pad(weight_BV, ((0, 0), (0, -vocabulary % BLOCK)))
    blocks = padded_BV.reshape(len(padded_BV), -1, BLOCK)
    here = blocks.shape[1]  # blocks on this device
    # The block axis comes first: a TPU then sums blocks and looks sums up without a transpose.
    of_block = jnp.sum(blocks.swapaxes(0, 1), axis=-1).T
    if split_over:
        of_block = jax.lax.all_gather(of_block, split_over, axis=1, tiled=True)
    # The last cumulative sum, as XLA would turn a sum of sums into one sum over the vocabulary.
    total_B = jnp.cumsum(of_block, axis=-1)[:, -1]
    before_B, rest_B = _step(of_block, uniform_B * total_B)
    block = _taken(blocks.swapaxes(0, 1), (before_B % here)[None, :, None], axis=0)[0]
    if split_over:
        is_here_B = before_B // here == jax.lax.axis_index(split_over)
        block = jax.lax.pmax(jnp.where(is_here_B[:, None], block, 0.0), split_over)
    within_B, _ = _step(block, rest_B)
    chosen_B = _taken(block, within_B[:, None], axis=1)[:, 0]
    token_B = before_B // here * vocabulary + before_B % here * BLOCK + within_B
    return token_B, jnp.log(chosen_B) - jnp.log(total_B)


def _taken(x: jax.Array, index: jax.Array, axis: int) -> jax.Array:
    """take_along_axis, for indices within the axis."""
    return jnp.take_along_axis(x, index, axis=axis, mode="promise_in_bounds")


def _likeliest(logits_BV: jax.Array, split_over: str) -> tuple[jax.Array, jax.Array]:
    token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    if split_over:
        token_B += logits_BV.shape[-1] * jax.lax.axis_index(split_over)
        top_BP, token_BP = jax.lax.all_gather((jnp.max(logits_BV, -1), token_B), split_over, axis=1)
        best_B1 = jnp.argmax(top_BP, axis=1)[:, None]
        token_B = jnp.take_along_axis(token_BP, best_B1, axis=1)[:, 0]
    return token_B, jnp.zeros(token_B.shape, jnp.float32)


def _step(weight: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose cumulative weight exceeds the target, and target less the weight before it.

    If rounding leaves no such index, the last index with weight.
    """
    total = jnp.cumsum(weight, axis=-1)
    size = weight.shape[-1]
    index = jnp.arange(size)
    # One minimum finds either: indices that exceed the target rank in order, all others after them
    # in reverse order. Rounding can make a cumulative sum grow at a weight of 0: never stop there.
    rank = jnp.where(total > target_B[:, None], index, 2 * size - index)
    rank_B = jnp.min(jnp.where(weight > 0, rank, 2 * size), axis=-1)
    index_B = jnp.where(rank_B < size, rank_B, 2 * size - rank_B)
    before_B = _taken(total, jnp.maximum(index_B - 1, 0)[:, None], axis=1)[:, 0]
    return index_B, target_B - jnp.where(index_B > 0, before_B, 0.0)
