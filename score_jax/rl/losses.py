"""The objective: policy gradient of sampled tokens, with its normaliser named."""

import jax
import jax.numpy as jnp

NORMALIZERS = ("sequence", "token", "constant")


def normalizer(mask_BN: jax.Array, name: str, constant: float) -> jax.Array:
    """What a sum over the batch's tokens is divided by.

    "sequence": B, so that a row counts with the sum of its tokens (RLOO, and the paper).
    "token":    the number of tokens where the mask is 1: long rows weigh more, scale is per token.
    "constant": B * constant, e.g. the longest attempt: as "sequence" up to a factor.
    """
    rows = mask_BN.shape[0]
    if name == "sequence":
        return jnp.float32(rows)
    if name == "token":
        return jnp.maximum(jnp.sum(mask_BN), 1.0).astype(jnp.float32)
    if name == "constant":
        return jnp.float32(rows * constant)
    raise ValueError(f"unknown normalizer '{name}'; known: {', '.join(NORMALIZERS)}")


def importance_weights(logp: jax.Array, behaviour_logp: jax.Array, cap: jax.Array) -> jax.Array:
    """Learner's over sampler's probability of each token, at most `cap`; without gradient.

    Corrects for a sampler that computes otherwise than the learner (bf16, quantised, other kernels,
    stale weights). Source: truncated importance sampling, Ionides 2008.
    """
    ratio = jnp.exp(jax.lax.stop_gradient(logp) - behaviour_logp)
    return jnp.minimum(ratio, cap)


def reinforce_sum(logp_BN: jax.Array, advantage_BN: jax.Array, mask_BN: jax.Array) -> jax.Array:
    """Policy-gradient loss of sampled tokens; minimising it raises logp where advantage > 0.

    Returns: scalar, the sum over tokens where mask is 1; divide by `normalizer`.
    Raises: ValueError if shapes differ.
    Source: Williams 1992; SCoRe, arXiv 2409.12917, section 3 (on-policy, one step per batch).
    """
    if not logp_BN.shape == advantage_BN.shape == mask_BN.shape:
        raise ValueError(
            "log-probs, advantages and mask are per token and must have one shape, not "
            f"{logp_BN.shape}, {advantage_BN.shape}, {mask_BN.shape}."
        )
    return -jnp.sum(jnp.where(mask_BN, logp_BN * jax.lax.stop_gradient(advantage_BN), 0.0))
