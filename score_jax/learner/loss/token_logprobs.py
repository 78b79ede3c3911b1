"""Log-prob, entropy and loss of the tokens the policy wrote, without logits for a whole batch.

Only positions that the policy wrote are projected to the vocabulary, one chunk of tokens at a time,
and a chunk's gradient is taken while its logits exist (vocab_chunks.py). So [B, T, V] never
exists, and memory does not grow with tokens times vocabulary.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_jax.learner.loss import split_vocab, vocab_chunks
from score_jax.model import transformer
from score_jax.model.families import ModelConfig
from score_jax.rl import kl, losses
from score_jax.rl.policy import Policy, allow, distort
from score_jax.runtime import sharding
from score_jax.structs import Params

# The default size of a chunk: as many tokens as make 16 MB of float32 logits. With a large
# vocabulary that would be so few that reading the head dominates, so a chunk then has at least 256
# tokens, or half the model's width where that is less.
_CHUNK_LOGITS, _LARGE_CHUNK = 2**22, 256


@dataclasses.dataclass(frozen=True)
class LikelihoodSettings:
    """Which log-probs are computed, and how. Static under jit."""

    model: ModelConfig
    policy: Policy
    dtype: str = "float32"  # of the forward and backward matmuls
    chunk: int = 0  # tokens projected to the vocabulary at once; 0 chooses
    remat: str = "products"  # a key of transformer.REMAT
    attention: str = "xla"  # a key of attention.ATTENTIONS
    mesh: Mesh | None = None  # over which rows and params are split; None: one device

    @property
    def split_over(self) -> str:
        """The mesh axis over which the vocabulary's projection is split; "": none."""
        return "fsdp" if self.mesh and self.mesh.shape["fsdp"] > 1 else ""


class Written(flax.struct.PyTreeNode):
    """The columns that the policy wrote, gathered to the front; N columns suffice for every row.

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
    """Gathers the columns that the policy wrote; a row has at most `limit` (N) of them."""
    limit = min(limit, attempt_BT.shape[1])
    order_BT = jnp.argsort(attempt_BT == 0, axis=1, stable=True)  # written first, in order
    column_BN = order_BT[:, :limit]
    attempt_BN = jnp.take_along_axis(attempt_BT, column_BN, axis=1)
    return Written(column=jnp.where(attempt_BN > 0, column_BN, 1), attempt=attempt_BN)


def log_probs(
    params: Params, tokens_BT: jax.Array, where: Written, settings: LikelihoodSettings
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy of each written token under the policy, given all tokens before it.

    Returns: logp_BN and entropy_BN, float32 nats; 0 where the mask is 0. They have no gradient;
      the sum that `loss` returns has one.
    """
    hidden_BND = hidden_before(params, tokens_BT, where, settings)
    return read(params, hidden_BND, where.take(tokens_BT), where, settings)


def hidden_before(
    params: Params, tokens_BT: jax.Array, where: Written, settings: LikelihoodSettings
) -> jax.Array:
    """The hidden states that predict the written tokens, [B, N, D]."""
    hidden_BTD = transformer.hidden(
        settings.model,
        jax.tree.map(lambda x: x.astype(settings.dtype), params),
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
    head = transformer.head(settings.model, params)
    loop = _loop(functools.partial(_read_chunk, settings=settings), settings)
    _, found = vocab_chunks.values(loop, head, None, where.mask, hidden_BND, target_BN)
    return found


def loss(
    params: Params,
    hidden_BND: jax.Array,
    target_BN: jax.Array,
    where: Written,
    terms: losses.TokenTerms,
    settings: LikelihoodSettings,
    *,
    kl_estimator: str = "k1",
    weighted: bool = False,
    reference: Params | None = None,
    reference_BND: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """`losses.token_loss` summed over all written tokens, one chunk at a time.

    Args:
      kl_estimator, weighted: as `token_loss` takes them.
      reference: if given, the KL to it over the whole vocabulary is computed, of the distributions
        before top-k and top-p: after them it could be infinite.
      reference_BND: `hidden_before` of the reference.

    Returns: the sum, which has a gradient with respect to params and hidden states only; and
      logp_BN and entropy_BN as `read` returns them, without gradient.
    """
    head = transformer.head(settings.model, params)
    frozen = None if reference is None else transformer.head(settings.model, reference)
    score = functools.partial(
        _loss_of_chunk, settings=settings, kl_estimator=kl_estimator, weighted=weighted
    )
    inputs = (target_BN, reference_BND, terms)
    summed, found = vocab_chunks.total(
        _loop(score, settings), head, frozen, where.mask, hidden_BND, *inputs
    )
    return summed, jax.lax.stop_gradient(found)


def _read_chunk(head, _, mask_BN, hidden_BND, target_BN, *, settings: LikelihoodSettings):
    logits_BNV = _project(head, hidden_BND, settings)
    return jnp.float32(0.0), _log_prob_and_entropy(logits_BNV, target_BN, mask_BN, settings)


def _loss_of_chunk(
    head,
    reference_head,
    mask_BN,
    hidden_BND,
    target_BN,
    reference_BND,
    terms,
    *,
    settings: LikelihoodSettings,
    kl_estimator: str,
    weighted: bool,
):
    s = settings
    logits_BNV = _project(head, hidden_BND, s)
    logp_BN, entropy_BN = _log_prob_and_entropy(logits_BNV, target_BN, mask_BN, s)
    kl_BN = None
    if reference_head is not None:
        reference_BNV = _project(reference_head, reference_BND, s)
        untruncated = Policy(temperature=s.policy.temperature)
        both = (
            distort(split_vocab.whole(x, s.split_over, s.model.vocab_size), untruncated)
            for x in (logits_BNV, reference_BNV)
        )
        kl_BN = kl.exact(*both)
    loss = losses.token_loss(
        logp_BN, kl_BN, mask_BN, terms, kl_estimator=kl_estimator, weighted=weighted
    )
    return loss, (logp_BN, entropy_BN)


def _project(head, hidden_BND, settings: LikelihoodSettings) -> jax.Array:
    """Logits of the tokens that the policy may sample, split over `split_over`."""
    logits_BNV = split_vocab.project(settings.model, head, hidden_BND, settings.split_over)
    return allow(logits_BNV, settings.policy, settings.split_over)


def chunk_tokens(chunk: int, model: ModelConfig) -> int:
    """Tokens projected to the vocabulary at once on a device: `chunk`, or a default if it is 0."""
    large = min(_LARGE_CHUNK, model.width // 2)
    return chunk or max(large, _CHUNK_LOGITS // model.vocab_size)


def _log_prob_and_entropy(logits_BNV, target_BN, mask_BN, settings: LikelihoodSettings):
    axis = settings.split_over
    if settings.policy.truncates:
        logits_BNV, axis = split_vocab.whole(logits_BNV, axis, settings.model.vocab_size), ""
    distorted_BNV = distort(logits_BNV, settings.policy, drawn=target_BN)
    found = split_vocab.log_prob_and_entropy(distorted_BNV, target_BN, axis)
    return tuple(jnp.where(mask_BN, x_BN, 0.0) for x_BN in found)


def _loop(score, settings: LikelihoodSettings) -> vocab_chunks.Loop:
    tokens = chunk_tokens(settings.chunk, settings.model)
    # XLA fails on sums over axes of size 1 while it partitions another axis, `tensor`, itself.
    split = settings.mesh and sharding.batch_size(settings.mesh) > 1
    mesh = settings.mesh if split else None
    return vocab_chunks.Loop(score, tokens, settings.dtype, mesh, settings.split_over)
