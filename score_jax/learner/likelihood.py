"""Log-prob and entropy of the tokens the policy wrote, without logits for a whole batch.

Only positions that the policy wrote are projected to the vocabulary, a chunk of tokens at a time;
the backward pass recomputes a chunk's logits. So [B, T, V] never exists, and memory does not grow
with tokens times vocabulary.
"""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.model import transformer
from score_jax.model.families import ModelConfig
from score_jax.rl import kl
from score_jax.rl.policy import Policy, distort, entropy, log_prob
from score_jax.structs import Params

CHUNK_LOGITS = 2**22  # logits of one chunk, when the chunk is chosen here: 16 MB in float32


@dataclasses.dataclass(frozen=True)
class LikelihoodSettings:
    """What the log-probs are of, and how they are computed. Static under jit."""

    model: ModelConfig
    policy: Policy
    dtype: str = "float32"  # of the forward and backward matmuls
    chunk: int = 0  # tokens projected to the vocabulary at once; 0 chooses
    remat: str = "products"  # a key of transformer.REMAT


class Written(flax.struct.PyTreeNode):
    """Where the policy wrote, gathered to the front: N columns are enough for every row.

    For tokens  p p a a i b .   with attempts  0 0 1 1 0 2 0:   column 2 3 5 .   attempt 1 1 2 0
    """

    column: jax.Array  # [B, N] int32, 1..T-1; 1 where there is none
    attempt: jax.Array  # [B, N] int32, 1..A; 0 where there is none

    @property
    def mask(self) -> jax.Array:
        """[B, N] bool."""
        return self.attempt > 0

    def take(self, x_BT: jax.Array) -> jax.Array:
        """Per-column values at these columns: [B, N]."""
        return jnp.take_along_axis(x_BT, self.column, axis=1)


def written(attempt_BT: jax.Array, limit: int) -> Written:
    """Gathers the columns that the policy wrote; `limit` (N) bounds how many a row can have."""
    limit = min(limit, attempt_BT.shape[1])
    order_BT = jnp.argsort(attempt_BT == 0, axis=1, stable=True)  # written first, in order
    column_BN = order_BT[:, :limit]
    attempt_BN = jnp.take_along_axis(attempt_BT, column_BN, axis=1)
    return Written(column=jnp.where(attempt_BN > 0, column_BN, 1), attempt=attempt_BN)


def log_probs(
    params: Params, tokens_BT: jax.Array, where: Written, settings: LikelihoodSettings
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy of each written token under the policy, given all tokens before it.

    Returns: logp_BN and entropy_BN, float32 nats; 0 where the mask is 0. Entropy has no gradient.
    """
    hidden_BND = hidden_before(params, tokens_BT, where, settings)
    return read(params, hidden_BND, where.take(tokens_BT), where, settings)


def hidden_before(
    params: Params, tokens_BT: jax.Array, where: Written, settings: LikelihoodSettings
) -> jax.Array:
    """The hidden states that predict the written tokens, [B, N, D]."""
    params = _cast(params, settings)
    hidden_BTD = transformer.hidden(settings.model, params, tokens_BT, remat=settings.remat)
    return jnp.take_along_axis(hidden_BTD, where.column[..., None] - 1, axis=1)


def read(
    params: Params,
    hidden_BND: jax.Array,
    target_BN: jax.Array,
    where: Written,
    settings: LikelihoodSettings,
) -> tuple[jax.Array, jax.Array]:
    """`log_probs` from the hidden states."""
    params = _cast(params, settings)

    def project(hidden_ND, target_N):
        logits_NV = transformer.project(settings.model, params, hidden_ND)
        return _score(logits_NV, target_N, settings.policy)

    return _by_chunks(project, where, settings, hidden_BND, target_BN)


def read_with_kl(
    params: Params,
    hidden_BND: jax.Array,
    target_BN: jax.Array,
    where: Written,
    settings: LikelihoodSettings,
    *,
    reference: Params,
    reference_BND: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `read`, and kl_BN: KL(policy || reference) of the distribution each token was drawn from.

    Of the distributions before top-k and top-p, under which it could be infinite.
    Args:
      reference_BND: `hidden_before` of the reference; neither it nor `reference` gets a gradient.
    """
    s = settings
    params, reference = _cast(params, s), jax.lax.stop_gradient(_cast(reference, s))
    whole = Policy(temperature=s.policy.temperature)

    def project(hidden_ND, target_N, reference_ND):
        logits_NV = transformer.project(s.model, params, hidden_ND)
        reference_NV = transformer.project(s.model, reference, reference_ND)
        kl_N = kl.exact(distort(logits_NV, whole), distort(reference_NV, whole))
        return *_score(logits_NV, target_N, s.policy), kl_N

    reference_BND = jax.lax.stop_gradient(reference_BND)
    return _by_chunks(project, where, s, hidden_BND, target_BN, reference_BND)


def _cast(params: Params, settings: LikelihoodSettings) -> Params:
    return jax.tree.map(lambda x: x.astype(settings.dtype), params)


def _score(logits_NV, target_N, policy: Policy):
    distorted_NV = distort(logits_NV, policy, drawn=target_N)
    return log_prob(distorted_NV, target_N), entropy(jax.lax.stop_gradient(distorted_NV))


def _by_chunks(project, where: Written, settings: LikelihoodSettings, *inputs_BN):
    """`project` of `chunk` tokens at a time, recomputed in the backward pass; 0 off the mask."""
    shape = where.column.shape
    size = math.prod(shape)
    chunk = min(settings.chunk or max(64, CHUNK_LOGITS // settings.model.vocab_size), size)
    chunks = tuple(_chunks(x.reshape(size, *x.shape[2:]), chunk) for x in inputs_BN)
    outputs = jax.lax.map(lambda x: jax.checkpoint(project, prevent_cse=False)(*x), chunks)
    return tuple(jnp.where(where.mask, x.reshape(-1)[:size].reshape(shape), 0.0) for x in outputs)


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """[M, ...] to [chunks, size, ...], padded with zeros behind."""
    padding = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])
