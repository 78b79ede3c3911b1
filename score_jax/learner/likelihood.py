"""Log-prob and entropy of the tokens the policy wrote, without logits for a whole batch.

Only positions that the policy wrote are projected to the vocabulary, a chunk of tokens at a time;
the backward pass recomputes a chunk's logits. So [B, T, V] never exists, and memory does not grow
with tokens times vocabulary.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_jax.learner import chunked
from score_jax.model import transformer
from score_jax.model.families import ModelConfig
from score_jax.rl import kl
from score_jax.rl.policy import Policy, distort, entropy, log_prob
from score_jax.structs import Params

# Tokens of one chunk, when it is chosen here: as many as make 16 MB of logits in float32; with a
# large vocabulary more, for a product that is not bound by reading the head, up to half its size.
CHUNK_LOGITS, LARGE_CHUNK = 2**22, 256


@dataclasses.dataclass(frozen=True)
class LikelihoodSettings:
    """What the log-probs are of, and how they are computed. Static under jit."""

    model: ModelConfig
    policy: Policy
    dtype: str = "float32"  # of the forward and backward matmuls
    chunk: int = 0  # tokens projected to the vocabulary at once; 0 chooses
    remat: str = "products"  # a key of transformer.REMAT
    attention: str = "xla"  # or a key of kernels.KERNELS
    mesh: Mesh | None = None  # that rows and params are split over; None: one device


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
    hidden_BTD = transformer.hidden(
        settings.model,
        params,
        tokens_BT,
        remat=settings.remat,
        kernel=settings.attention,
        mesh=settings.mesh,
    )
    return jnp.take_along_axis(hidden_BTD, where.column[..., None] - 1, axis=1)


def read(
    params: Params,
    hidden_BND: jax.Array,
    target_BN: jax.Array,
    where: Written,
    settings: LikelihoodSettings,
) -> tuple[jax.Array, jax.Array]:
    """`log_probs` from the hidden states."""
    s = settings

    def score(head, _, hidden_BND, target_BN):
        return _score(transformer.project(s.model, head, hidden_BND), target_BN, s.policy)

    head = transformer.head(s.model, params)
    return _by_chunks(score, head, None, where, s, hidden_BND, target_BN)


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
    whole = Policy(temperature=s.policy.temperature)

    def score(head, reference_head, hidden_BND, target_BN, reference_BND):
        logits_BNV = transformer.project(s.model, head, hidden_BND)
        reference_BNV = transformer.project(s.model, reference_head, reference_BND)
        kl_BN = kl.exact(distort(logits_BNV, whole), distort(reference_BNV, whole))
        return *_score(logits_BNV, target_BN, s.policy), kl_BN

    head, reference_head = (transformer.head(s.model, x) for x in (params, reference))
    return _by_chunks(score, head, reference_head, where, s, hidden_BND, target_BN, reference_BND)


def _cast(params: Params, settings: LikelihoodSettings) -> Params:
    return jax.tree.map(lambda x: x.astype(settings.dtype), params)


def _score(logits_BNV, target_BN, policy: Policy):
    distorted_BNV = distort(logits_BNV, policy, drawn=target_BN)
    return log_prob(distorted_BNV, target_BN), entropy(jax.lax.stop_gradient(distorted_BNV))


def _by_chunks(score, head, frozen, where: Written, settings: LikelihoodSettings, *inputs_BN):
    """`score(head, frozen, *inputs)` of the written tokens; 0 off the mask."""
    model = settings.model
    large = min(LARGE_CHUNK, model.width // 2)
    tokens = settings.chunk or max(large, CHUNK_LOGITS // model.vocab_size)
    loop = chunked.Loop(score, tokens, settings.dtype, settings.mesh)
    outputs_BN = chunked.over_chunks(loop, head, frozen, where.mask, *inputs_BN)
    return tuple(jnp.where(where.mask, x_BN, 0.0) for x_BN in outputs_BN)
