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
    padding = ((0, 0), (0, -distorted_BV.shape[-1] % BLOCK))
    padded_BV = jnp.pad(distorted_BV, padding, constant_values=-jnp.inf)
    blocks = padded_BV.reshape(len(padded_BV), -1, BLOCK)
    of_block = jnp.sum(jnp.exp(blocks - top_B1[..., None]), axis=-1)
    # The last of the cumulated sums: a sum of sums would be made one sum, over the whole vocabulary.
    total_B = jnp.cumsum(of_block, axis=-1)[:, -1]
    before_B, rest_B = _step(of_block, uniform_B * total_B)
    block = jnp.take_along_axis(blocks, before_B[:, None, None], axis=1)[:, 0] - top_B1
    within_B, _ = _step(jnp.exp(block), rest_B)
    chosen_B = jnp.take_along_axis(block, within_B[:, None], axis=-1)[:, 0]
    return before_B * BLOCK + within_B, chosen_B - jnp.log(total_B)


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
