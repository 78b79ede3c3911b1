"""The distribution that tokens are sampled from, defined once.

The sampler stores log-probs under this distribution and the learner trains log-probs under the same
one: both include temperature and truncation.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Policy:
    """How logits become a distribution. Static under jit: options that are off cost nothing."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    top_p: float = 1.0  # then keep the smallest set with at least this mass; 1 keeps all
    # Ids that have no probability: all from `vocabulary` on (0: none), such as an embedding's rows
    # of padding, and those in `forbidden`. See `allow`.
    vocabulary: int = 0
    forbidden: tuple[int, ...] = ()

    @property
    def truncates(self) -> bool:
        """Whether a token's probability may become zero; that depends on all other logits."""
        return self.temperature > 0.0 and (self.top_k > 0 or self.top_p < 1.0)


# In place of a forbidden token's logit: its exponential is 0, and unlike that of -inf its product
# with a probability of 0 is 0, also in a KL.
_NEVER = -1e30


def allow(logits_V: jax.Array, policy: Policy, split_over: str = "") -> jax.Array:
    """The logits, with `_NEVER` for tokens that the policy never samples; no gradient reaches them.

    To be applied before anything else: to the sampler's logits, the learner's and the reference's.

    split_over: the mesh axis over which the vocabulary is split, in order; "": none.
    """
    if not policy.vocabulary and not policy.forbidden:
        return logits_V
    id_V = jnp.arange(logits_V.shape[-1])
    if split_over:
        id_V += logits_V.shape[-1] * jax.lax.axis_index(split_over)
    never_V = id_V >= policy.vocabulary if policy.vocabulary else jnp.zeros(id_V.shape, bool)
    if policy.forbidden:
        table = np.zeros(max(policy.forbidden) + 1, bool)
        table[list(policy.forbidden)] = True
        never_V |= jnp.asarray(table).at[id_V].get(mode="fill", fill_value=False)
    return jnp.where(never_V, jnp.asarray(_NEVER, logits_V.dtype), logits_V)


def distort(logits_V: jax.Array, policy: Policy, drawn: jax.Array | None = None) -> jax.Array:
    """Unnormalised log-probs of the policy over the last axis; -inf for truncated tokens.

    Ties at a threshold are all kept. The most likely token always stays.

    Args:
      drawn: token that was sampled, shape of logits without the last axis; it is always kept. The
        sampler kept it; other rounding here, or other weights (the reference's), could truncate it,
        and its log-prob must not become -inf.
    """
    logits_V = logits_V.astype(jnp.float32)
    if policy.temperature != 1.0:
        logits_V = logits_V / policy.temperature
    kept_V = logits_V
    if 0 < policy.top_k < kept_V.shape[-1]:
        threshold = jax.lax.top_k(kept_V, policy.top_k)[0][..., -1:]
        kept_V = jnp.where(kept_V < threshold, -jnp.inf, kept_V)
    if policy.top_p < 1.0:
        sorted_V = jnp.sort(kept_V, axis=-1, descending=True)
        mass_V = jnp.cumsum(jax.nn.softmax(sorted_V, axis=-1), axis=-1)
        # A token stays if the mass before it is still short of top_p.
        kept = jnp.sum(mass_V < policy.top_p, axis=-1, keepdims=True)
        kept = jnp.minimum(kept, kept_V.shape[-1] - 1)
        threshold = jnp.take_along_axis(sorted_V, kept, axis=-1)
        kept_V = jnp.where(kept_V < threshold, -jnp.inf, kept_V)
    if drawn is not None and kept_V is not logits_V:
        is_drawn_V = jnp.arange(logits_V.shape[-1]) == drawn[..., None]
        kept_V = jnp.where(is_drawn_V, logits_V, kept_V)
    return kept_V


def log_prob_and_entropy(distorted_V: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-prob of `token`, and the distribution's entropy in nats, which has no gradient.

    Both are float32 and have the shape of `token`: that of the logits without the last axis.
    Exponentials are computed once: over a large vocabulary they cost as much as the logits.
    """
    top = jax.lax.stop_gradient(jnp.max(distorted_V, axis=-1, keepdims=True))
    weight_V = jnp.exp(distorted_V - top)
    mass = jnp.sum(weight_V, axis=-1)
    logsumexp = jnp.log(mass) + top[..., 0]
    chosen = jnp.take_along_axis(distorted_V, token[..., None], axis=-1)[..., 0]
    energy_V = jnp.where(weight_V > 0, weight_V * distorted_V, 0.0)  # 0 * -inf where truncated
    entropy = logsumexp - jnp.sum(energy_V, axis=-1) / mass
    return chosen - logsumexp, jax.lax.stop_gradient(entropy)
