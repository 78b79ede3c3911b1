"""Estimators of KL(policy || reference) from tokens that the policy sampled.

`k1` is the paper's. It goes into the reward, detached: REINFORCE then gives the gradient of the
reverse KL of the whole sequence. The gradient of k1 itself is zero in expectation. The others are
losses. `k2` has the reverse KL's gradient token by token, and `k3` the forward KL's. `exact` is the
reverse KL of the next token over the whole vocabulary: k2's gradient without its noise, at the cost
of projecting the reference's hidden states once more.

Source: arXiv 2506.09477 on the gradients of the three.
"""

import jax
import jax.numpy as jnp


def k1(logp: jax.Array, reference_logp: jax.Array) -> jax.Array:
    """log pi - log ref: unbiased, may be negative."""
    return logp - reference_logp


def k2(logp: jax.Array, reference_logp: jax.Array) -> jax.Array:
    """Half the squared log-ratio: biased in value, never negative."""
    return 0.5 * (logp - reference_logp) ** 2


def k3(logp: jax.Array, reference_logp: jax.Array) -> jax.Array:
    """ref / pi - 1 - log(ref / pi): unbiased in value, never negative."""
    log_ratio = reference_logp - logp
    return jnp.expm1(log_ratio) - log_ratio


def exact(logits: jax.Array, reference_logits: jax.Array) -> jax.Array:
    """Reverse KL over the last axis; logits must be finite and need not be normalized."""
    logp = jax.nn.log_softmax(logits, axis=-1)
    return jnp.sum(jnp.exp(logp) * (logp - jax.nn.log_softmax(reference_logits, axis=-1)), axis=-1)


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3, "exact": exact}


def per_attempt(value_BN: jax.Array, attempt_BN: jax.Array, attempts: int) -> jax.Array:
    """Sums values over the tokens of each attempt: [B, A]. Tokens of attempt 0 are ignored."""
    one_hot_BNA = attempt_BN[..., None] == jnp.arange(1, attempts + 1)
    return jnp.sum(jnp.where(one_hot_BNA, value_BN[..., None], 0.0), axis=1)
