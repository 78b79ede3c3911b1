"""Log-prob and entropy of the tokens the policy wrote, without logits for a whole batch.

Only positions that the policy wrote are projected to the vocabulary, a chunk of tokens at a time;
the backward pass recomputes a chunk's logits. So [B, T, V] never exists, and memory does not grow
with tokens times vocabulary.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.model import transformer
from score_jax.model.families import ModelConfig
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
    s = settings
    params = jax.tree.map(lambda x: x.astype(s.dtype), params)
    hidden_BTD = transformer.hidden(s.model, params, tokens_BT, remat=s.remat)
    before_BN1 = where.column[..., None] - 1  # the hidden state before a token predicts it
    hidden_BND = jnp.take_along_axis(hidden_BTD, before_BN1, axis=1)
    target_BN = where.take(tokens_BT)

    shape = target_BN.shape
    chunk = min(s.chunk or max(64, CHUNK_LOGITS // s.model.vocab_size), target_BN.size)
    hidden_CND = _chunks(hidden_BND.reshape(-1, hidden_BND.shape[-1]), chunk)
    target_CN = _chunks(target_BN.reshape(-1), chunk)
    project = functools.partial(_project, params, settings=s)
    logp_CN, entropy_CN = jax.lax.map(
        lambda x: jax.checkpoint(project, prevent_cse=False)(*x), (hidden_CND, target_CN)
    )
    logp_BN = logp_CN.reshape(-1)[: target_BN.size].reshape(shape)
    entropy_BN = entropy_CN.reshape(-1)[: target_BN.size].reshape(shape)
    return jnp.where(where.mask, logp_BN, 0.0), jnp.where(where.mask, entropy_BN, 0.0)


def _project(params, hidden_ND, target_N, *, settings: LikelihoodSettings):
    """One chunk: logits live and die here."""
    logits_NV = transformer.project(settings.model, params, hidden_ND)
    distorted_NV = distort(logits_NV, settings.policy, drawn=target_N)
    return log_prob(distorted_NV, target_N), entropy(jax.lax.stop_gradient(distorted_NV))


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """[M, ...] to [chunks, size, ...], padded with zeros behind."""
    padding = [(0, -x.shape[0] % size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])
