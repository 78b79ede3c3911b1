"""Logits to (token, log-prob): one uniform per row, no draw per vocabulary entry.

The inverse-CDF search is in two levels, so that a large vocabulary is summed once and only one
block of it is accumulated.
"""

import jax
import jax.numpy as jnp

from score_jax.rl.policy import Policy, distort

BLOCK = 128  # vocabulary entries per block of the search


def sample(
    logits_BV: jax.Array, uniform_B: jax.Array, policy: Policy
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row.

    Args:
      uniform_B: in [0, 1), one per row; unused when greedy.

    Returns: token_B int32 and logp_B float32, the log-prob under `policy` (0 when greedy: a
    deterministic choice has probability one).
    """
    if policy.temperature == 0.0:
        token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        return token_B, jnp.zeros(token_B.shape, jnp.float32)
    distorted_BV = distort(logits_BV, policy)
    top_B1 = jnp.max(distorted_BV, axis=-1, keepdims=True)
    weight_BV = jnp.exp(distorted_BV - top_B1)
    token_B, total_B = _search(weight_BV, uniform_B)
    chosen_B1 = jnp.take_along_axis(distorted_BV, token_B[:, None], axis=-1)
    logp_B = (chosen_B1 - top_B1)[:, 0] - jnp.log(total_B)
    return token_B, logp_B


def _search(weight_BV: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index whose interval of the cumulated weights holds uniform * total; its weight is not zero.

    Returns: the index and the total of the weights.
    """
    rows, vocabulary = weight_BV.shape
    padded_BV = jnp.pad(weight_BV, ((0, 0), (0, -vocabulary % BLOCK)))
    blocks = padded_BV.reshape(rows, -1, BLOCK)
    of_block = jnp.sum(blocks, axis=-1)
    total_B = jnp.sum(of_block, axis=-1)
    before, rest_B = _step(of_block, uniform_B * total_B)
    block = jnp.take_along_axis(blocks, before[:, None, None], axis=1)[:, 0]
    within, _ = _step(block, rest_B)
    return before * BLOCK + within, total_B


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
