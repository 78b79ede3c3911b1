"""Log-probs of what was sampled, before the update: the two sides of the KL in the reward.

    of(params, reference, rows, ...) -> SampledLogProbs

The KL that is taken from the reward is a difference of log-probs. Computed by two programs it holds
the rounding of both: in bfloat16 tenths of a nat in an attempt of 64 tokens, where 0 is right. So
reference and policy run one compiled program, one after the other: where their weights are equal,
so is every bit. In float32 the sampler's log-probs agree with the learner's to 2e-6, and serve.

Rewards are not needed here: the program is queued behind the rollout and runs while texts are
graded.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.learner import lora
from score_jax.learner.loss import token_logprobs
from score_jax.learner.micro_batches import accumulate
from score_jax.learner.settings import LearnerSettings
from score_jax.runtime import compiles, sharding
from score_jax.structs import Batch, Episode, Params, SampledLogProbs


def of(
    params: Params,
    reference: Params,
    rows: Episode | Batch,
    settings: LearnerSettings,
    *,
    base: Params | None = None,
    hidden: bool = False,
) -> SampledLogProbs:
    """Queues the program on the device, for the reference and in bfloat16 for the policy too.

    Args:
      params: of the policy that is being trained.
      reference, base: as `step.train_step` takes them.
      hidden: keep the reference's hidden states, for the KL over the whole vocabulary.
    """
    attempts = rows.truncated.shape[1]
    read = functools.partial(compiled, settings=settings, attempts=attempts, hidden=hidden)
    arrays = (base, rows.tokens, rows.attempt, rows.length)
    # Adapters that are zero, and not none: without them it would be another program.
    frozen = reference if base is None or reference else jax.tree.map(jnp.zeros_like, params)
    reference_BN, reference_BND = read(frozen, *arrays)
    policy_BN = None if settings.likelihood.dtype == "float32" else read(params, *arrays)[0]
    return SampledLogProbs(reference=reference_BN, policy=policy_BN, hidden=reference_BND)


def ahead(
    params: Params,
    rows: Episode | Batch,
    settings: LearnerSettings,
    *,
    base: Params | None = None,
    hidden: bool = False,
) -> SampledLogProbs:
    """Begins to compile what `of` runs on arguments of these shapes; returns its results' shapes.

    Of a reference, params have the shapes.
    """
    arguments = (params, base, rows.tokens, rows.attempt, rows.length)
    attempts = rows.truncated.shape[1]
    compiled.ahead(*arguments, settings=settings, attempts=attempts, hidden=hidden)
    return shapes(rows, settings, hidden=hidden)


def shapes(rows: Episode | Batch, settings: LearnerSettings, *, hidden: bool) -> SampledLogProbs:
    """What `of` returns, as shapes that are split as the rows are."""
    s, (b, t) = settings, rows.tokens.shape
    n = min(rows.truncated.shape[1] * s.max_attempt_tokens, t)
    split = getattr(rows.tokens, "sharding", None)
    made: Any = functools.partial(jax.ShapeDtypeStruct, sharding=split)
    logp_BN = made((b, n), jnp.float32)
    return SampledLogProbs(
        reference=logp_BN,
        policy=None if s.likelihood.dtype == "float32" else logp_BN,
        hidden=made((b, n, s.likelihood.model.width), s.likelihood.dtype) if hidden else None,
    )


def log_probs(params, base, tokens_BT, attempt_BT, length_B, *, settings, attempts: int, hidden):
    """logp_BN of the written tokens, and the hidden states before them if `hidden`.

    Computed in the parts of the split.
    """
    s, mesh = settings.likelihood, settings.likelihood.mesh
    where = token_logprobs.written(attempt_BT, attempts * settings.max_attempt_tokens)
    weights = lora.weights(params, base, settings.lora)

    def part(x):
        tokens_BT, where = x
        hidden_BND = token_logprobs.hidden_before(weights, tokens_BT, where, s)
        logp_BN, _ = token_logprobs.read(weights, hidden_BND, where.take(tokens_BT), where, s)
        return (), (logp_BN, hidden_BND if hidden else None)

    _, found = accumulate(part, (tokens_BT, where), length_B, settings.split)
    return jax.tree.map(lambda x: sharding.split_rows(x, mesh), found)


compiled = compiles.Compiled(
    log_probs, compiles.OLDER_EMITTER, static_argnames=("settings", "attempts", "hidden")
)
