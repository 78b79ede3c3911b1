"""The loss of sampled tokens: policy gradient and KL, with the normalizer named."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.rl import kl

# What a sum over the batch's tokens is divided by: (mask_BN, constant) -> scalar.
NORMALIZERS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    # B: a row counts with the sum of its tokens (RLOO, and the paper).
    "sequence": lambda mask_BN, constant: jnp.float32(mask_BN.shape[0]),
    # The number of tokens in the mask: long rows weigh more, the scale is per token.
    "token": lambda mask_BN, constant: jnp.maximum(jnp.sum(mask_BN), 1.0).astype(jnp.float32),
    # B * constant, for example the longest attempt: "sequence" up to a factor.
    "constant": lambda mask_BN, constant: jnp.float32(mask_BN.shape[0] * constant),
}


class TokenTerms(flax.struct.PyTreeNode):
    """What the loss of each sampled token depends on besides the policy; all [B, N] float32."""

    advantage: jax.Array
    behaviour: jax.Array  # log-prob under the sampler
    importance_cap: jax.Array
    reference: jax.Array  # log-prob under the reference
    kl_coefficient: jax.Array  # beta of the token's attempt


def token_loss(
    logp_BN: jax.Array,
    kl_BN: jax.Array | None,
    mask_BN: jax.Array,
    terms: TokenTerms,
    *,
    kl_estimator: str,
    weighted: bool,
) -> jax.Array:
    """The loss of some columns of the batch, which depends on each token alone.

    Args:
      kl_BN: KL to the reference over the whole vocabulary; None unless the estimator is "exact".
      kl_estimator: a key of kl.ESTIMATORS; "k1" is in the reward and adds nothing here.
      weighted: multiply advantages by importance weights.

    Returns: scalar, the sum over tokens where mask is 1; divide by `normalizer`.
    """
    advantage_BN = terms.advantage
    if weighted:
        advantage_BN *= importance_weights(logp_BN, terms.behaviour, terms.importance_cap)
    loss = reinforce_sum(logp_BN, advantage_BN, mask_BN)
    if kl_estimator in ("k2", "k3"):
        kl_BN = kl.ESTIMATORS[kl_estimator](logp_BN, terms.reference)
    if kl_BN is not None:
        loss += jnp.sum(jnp.where(mask_BN, terms.kl_coefficient * kl_BN, 0.0))
    return loss


def normalizer(mask_BN: jax.Array, name: str, constant: float) -> jax.Array:
    """What a sum over the batch's tokens is divided by. Raises: ValueError for an unknown name."""
    if name not in NORMALIZERS:
        raise ValueError(f"unknown normalizer '{name}'; known: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[name](mask_BN, constant)


def importance_weights(logp: jax.Array, behaviour_logp: jax.Array, cap: jax.Array) -> jax.Array:
    """Learner's over sampler's probability of each token, at most `cap`; without gradient.

    Corrects for a sampler that computes differently from the learner (bf16, quantised weights,
    other kernels, stale weights). Source: truncated importance sampling, Ionides 2008.
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
