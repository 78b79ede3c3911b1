"""Logits to (token, log-prob): one uniform per row, no draw per vocabulary entry.

The inverse-CDF search is in two levels, so that a large vocabulary is summed once and only one
block of it is accumulated.
"""

import jax
import jax.numpy as jnp

from score_jax.rl.policy import Policy, distort

BLOCK = 128  # vocabulary entries per block of the search


def sample(
    logits_BV: jax.Array, uniform_B: jax.Array, policy: Policy, split_over: str = ""
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row.

    Args:
      uniform_B: in [0, 1), one per row; unused when greedy.
      split_over: the mesh axis over whose devices the vocabulary is split, in order; every device
        returns the same. Truncation gathers the logits; without it, only sums of blocks travel.

    Returns: token_B int32 and logp_B float32, the log-prob under `policy` (0 when greedy: a
    deterministic choice has probability one).
    """
    if split_over and policy.truncates:
        logits_BV = jax.lax.all_gather(logits_BV, split_over, axis=1, tiled=True)
        split_over = ""
    if policy.temperature == 0.0:
        token_B = _argmax(logits_BV, split_over)
        return token_B, jnp.zeros(token_B.shape, jnp.float32)
    distorted_BV = distort(logits_BV, policy)
    top_B1 = jnp.max(distorted_BV, axis=-1, keepdims=True)
    if split_over:
        top_B1 = jax.lax.pmax(top_B1, split_over)
    vocabulary = distorted_BV.shape[-1]
    padding = ((0, 0), (0, -vocabulary % BLOCK))
    padded_BV = jnp.pad(distorted_BV, padding, constant_values=-jnp.inf)
    blocks = padded_BV.reshape(len(padded_BV), -1, BLOCK)
    here = blocks.shape[1]  # blocks on this device
    of_block = jnp.sum(jnp.exp(blocks - top_B1[..., None]), axis=-1)
    if split_over:
        of_block = jax.lax.all_gather(of_block, split_over, axis=1, tiled=True)
    # The last of the cumulated sums: XLA makes one sum of a sum of sums, over all the vocabulary.
    total_B = jnp.cumsum(of_block, axis=-1)[:, -1]
    before_B, rest_B = _step(of_block, uniform_B * total_B)
    block = jnp.take_along_axis(blocks, (before_B % here)[:, None, None], axis=1)[:, 0]
    if split_over:
        is_here_B = before_B // here == jax.lax.axis_index(split_over)
        block = jax.lax.pmax(jnp.where(is_here_B[:, None], block, -jnp.inf), split_over)
    block -= top_B1
    within_B, _ = _step(jnp.exp(block), rest_B)
    chosen_B = jnp.take_along_axis(block, within_B[:, None], axis=-1)[:, 0]
    token_B = before_B // here * vocabulary + before_B % here * BLOCK + within_B
    return token_B, chosen_B - jnp.log(total_B)


def _argmax(logits_BV: jax.Array, split_over: str) -> jax.Array:
    token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    if not split_over:
        return token_B
    vocabulary = logits_BV.shape[-1]
    token_B += vocabulary * jax.lax.axis_index(split_over)
    top_BP, token_BP = jax.lax.all_gather((jnp.max(logits_BV, -1), token_B), split_over, axis=1)
    return jnp.take_along_axis(token_BP, jnp.argmax(top_BP, axis=1)[:, None], axis=1)[:, 0]


def _step(weight: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose cumulated weight exceeds the target, and the target less what is before."""
    total = jnp.cumsum(weight, axis=-1)
    # A long sum is rounded in an order of its own and can grow over a zero: never stop there.
    reach = jnp.where(weight > 0, total, -1.0)
    # Sums in another order differ in the last digits: keep the target inside this one's range.
    target_B = jnp.clip(target_B, 0.0, jnp.nextafter(jnp.max(reach, axis=-1), 0.0))
    index_B = jnp.argmax(reach > target_B[:, None], axis=-1).astype(jnp.int32)
    before_B = jnp.where(
        index_B > 0, jnp.take_along_axis(total, index_B[:, None] - 1, axis=-1)[:, 0], 0.0
    )
    return index_B, target_B - before_B
