"""The train step: the only place that takes gradients.

    train_step(state, reference, batch, *, stage, base=None) -> state, metrics

One on-policy step of REINFORCE with per-attempt rewards: KL, shaped rewards, advantages, loss. The
KL's log-probs are a program of their own (sampled_logprobs.py), which the loop queues before it
grades. The stage's numbers are traced, so Stage I and Stage II run the same compiled program; only
its named choices (baseline, KL estimator, normalizer) are compiled in. SFT is this step with reward
1, no baseline and no reference. With LoRA the params of state and reference are adapters of the
same frozen `base`.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.config.settings import StageSettings
from score_jax.learner import lora, optimizer, sampled_logprobs
from score_jax.learner.loss import token_logprobs
from score_jax.learner.loss.token_logprobs import Written
from score_jax.learner.micro_batches import accumulate
from score_jax.learner.settings import LearnerSettings
from score_jax.rl import kl, losses
from score_jax.rl.advantages import advantages, deviation
from score_jax.rl.shaping import TRUNCATIONS, Shaping, overlong, shape
from score_jax.runtime import compiles
from score_jax.structs import Batch, Params, SampledLogProbs

ADVANTAGES = "advantages"  # of all rows, [B, A], beside the metrics, which are scalars
EARNED_THE_SAME = 1e-6  # rounding of an advantage between equal rewards is less


class TrainState(flax.struct.PyTreeNode):
    """Everything that an update changes."""

    step: jax.Array  # updates taken in this stage
    params: Params  # the trained ones: all weights, or adapters
    opt_state: Any
    settings: LearnerSettings = flax.struct.field(pytree_node=False)


class Coefficients(flax.struct.PyTreeNode):
    """The numbers of a stage, traced. Names as in StageSettings."""

    steps: Any
    learning_rate: Any
    warmup_steps: Any
    final_fraction: Any
    schedule: Any  # name -> 1.0 for the stage's schedule, 0.0 for the others
    reward_attempt1: Any
    reward_attempt2: Any
    bonus: Any
    kl_attempt1: Any
    kl_attempt2: Any
    discount: Any
    importance_cap: Any
    early_attempts: Any
    overlong_tokens: Any
    verdict: Any

    @classmethod
    def of(cls, stage: StageSettings) -> "Coefficients":
        names = [f.name for f in dataclasses.fields(cls) if f.name != "schedule"]
        schedule = {name: float(stage.schedule == name) for name in optimizer.SCHEDULES}
        return cls(**{name: float(getattr(stage, name)) for name in names}, schedule=schedule)


@dataclasses.dataclass(frozen=True)
class Choices:
    """The named choices of a stage, compiled in."""

    baseline: str
    standardize: bool
    kl_estimator: str
    normalizer: str
    importance_weights: bool
    truncation: str
    skip_unmixed: bool = False

    @classmethod
    def of(cls, stage: StageSettings) -> "Choices":
        named = (stage.baseline, stage.standardize, stage.kl_estimator, stage.normalizer)
        capped = stage.importance_cap > 0
        return cls(*named, capped, stage.truncation, stage.skip_unmixed)


def init(params: Params, settings: LearnerSettings) -> TrainState:
    """The state at the start of a stage: fresh optimizer, step 0."""
    opt_state = optimizer.fresh(params, settings.optimizer)
    return TrainState(step=jnp.int32(0), params=params, opt_state=opt_state, settings=settings)


def train_step(
    state: TrainState,
    reference: Params | None,
    batch: Batch,
    *,
    stage: StageSettings,
    base: Params | None = None,
    advantages: bool = False,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update; `state` is donated.

    Args:
      reference: the frozen policy of the KL terms; None for a stage without any (SFT).
      batch: the `samples` rows of one problem are adjacent. Log-probs for the KL terms that it does
        not hold are computed first.
      base: with LoRA, the frozen weights that the adapters of state and reference belong to; a
        reference `{}` is then these weights themselves.
      advantages: whether the metrics hold ADVANTAGES too, those of all rows and attempts, [B, A].

    Returns: the new state, and scalar metrics on the device by the names of metrics.jsonl. Where
      loss, gradient or log-probs are not finite the new state is the old one, but for its step.
    """
    if reference is not None and batch.logprobs is None:
        hidden = needs_hidden(stage)
        found = sampled_logprobs.of(
            state.params, reference, batch, state.settings, base=base, hidden=hidden
        )
        batch = batch.replace(logprobs=found)
    arguments = _arguments(state, reference, batch, stage, base)
    state, metrics = _train_step(*arguments, choices=Choices.of(stage))
    if not advantages:
        del metrics[ADVANTAGES]
    return state, metrics


def lower(
    state: TrainState,
    reference: Params | None,
    batch: Batch,
    *,
    stage: StageSettings,
    base: Params | None = None,
    platform: str = "",
):
    """`train_step` lowered for these arguments or their shapes; `.compile()` compiles it.

    platform: as of `compiles.Compiled.lower`.
    """
    if reference is not None and batch.logprobs is None:
        found = sampled_logprobs.shapes(batch, state.settings, hidden=needs_hidden(stage))
        batch = batch.replace(logprobs=found)
    arguments = _arguments(state, reference, batch, stage, base)
    return _train_step.lower(*arguments, choices=Choices.of(stage), platform=platform)


def ahead(
    state: TrainState,
    reference: Params | None,
    batch: Batch,
    *,
    stage: StageSettings,
    base: Params | None = None,
) -> None:
    """Begins to compile what a step runs on arguments of these shapes: log-probs and update."""
    if reference is not None:
        found = sampled_logprobs.ahead(
            state.params, batch, state.settings, base=base, hidden=needs_hidden(stage)
        )
        batch = batch.replace(logprobs=found)
    arguments = _arguments(state, reference, batch, stage, base)
    _train_step.ahead(*arguments, choices=Choices.of(stage))


def needs_hidden(stage: StageSettings) -> bool:
    """Whether the KL terms read the reference's hidden states."""
    return stage.kl_estimator == "exact"


def _arguments(state, reference, batch: Batch, stage: StageSettings, base):
    """Of the compiled update, to which the reference matters only where its head is read."""
    read = reference if needs_hidden(stage) else None
    return state, read, base, batch, Coefficients.of(stage)


@functools.partial(
    compiles.Compiled, options=compiles.OLDER_EMITTER, static_argnames="choices", donate_argnums=0
)
def _train_step(state, reference, base, batch: Batch, coefficients: Coefficients, *, choices):
    s = state.settings
    gradient, metrics = loss_gradient(
        state.params,
        batch,
        coefficients,
        choices=choices,
        settings=s,
        base=base,
        reference=reference,
    )
    rate = optimizer.learning_rate(state.step, coefficients)
    metrics |= {"grad_norm": _global_norm(gradient), "learning_rate": rate}
    metrics |= optimizer.norms("grad_norm", gradient)
    # A step that is not finite is not taken, so that it can be skipped, or replayed.
    counts = metrics.get("skipped_unmixed", jnp.float32(0)) == 0
    finite = [jnp.isfinite(metrics[key]) for key in ("loss", "grad_norm", "logp_gap")]

    def take(params, opt_state):
        direction, opt_state = optimizer.make(s.optimizer).update(gradient, opt_state, params)
        sizes = optimizer.norms("update_norm", direction)
        params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
        return params, opt_state, {name: rate * size for name, size in sizes.items()}

    def leave(params, opt_state):
        *_, sizes = jax.eval_shape(take, params, opt_state)
        return params, opt_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sizes)

    # A branch, and no choice between two results: both would be in memory.
    taken = functools.reduce(jnp.logical_and, finite, counts)
    params, opt_state, sizes = jax.lax.cond(taken, take, leave, state.params, state.opt_state)
    metrics |= optimizer.norms("param_norm", params) | sizes
    step = state.step + counts.astype(state.step.dtype)
    updated = state.replace(step=step, params=params, opt_state=opt_state)
    return updated, metrics


def loss_gradient(
    params: Params,
    batch: Batch,
    coefficients: Coefficients,
    *,
    choices: Choices,
    settings: LearnerSettings,
    base: Params | None = None,
    reference: Params | None = None,
) -> tuple[Params, dict[str, jax.Array]]:
    """Gradient of the loss at `params`, and the metrics of the batch. Arguments as `train_step`'s.

    Args:
      batch: without `logprobs` the loss has no KL terms.
      reference: read for the KL over the whole vocabulary only.

    Source: the estimator of SCoRe, arXiv 2409.12917, with RLOO's baseline, arXiv 2402.14740.
    """
    s = settings
    attempts = batch.reward.shape[1]
    where = token_logprobs.written(batch.attempt, attempts * s.max_attempt_tokens)
    behaviour_BN = where.take(batch.logp)
    known = batch.logprobs or SampledLogProbs(reference=behaviour_BN)
    policy_BN = behaviour_BN if known.policy is None else known.policy
    kl_BN = jnp.where(where.mask, kl.k1(policy_BN, known.reference), 0.0)
    kl_BA = kl.per_attempt(kl_BN, where.attempt, attempts)

    shaping = Shaping.of(coefficients, attempts)
    advantage_BA = _advantages(batch, where, kl_BA, shaping, coefficients, choices, s)
    skipped: dict[str, jax.Array] = {}
    if choices.skip_unmixed:  # what the advantages are without the KL
        earned_BA = _advantages(
            batch, where, jnp.zeros_like(kl_BA), shaping, coefficients, choices, s
        )
        even = jnp.max(jnp.abs(earned_BA)) < EARNED_THE_SAME
        skipped["skipped_unmixed"] = even.astype(jnp.float32)
    terms = losses.TokenTerms(
        advantage=_per_token(advantage_BA, where.attempt),
        behaviour=behaviour_BN,
        importance_cap=jnp.full_like(behaviour_BN, coefficients.importance_cap),
        reference=known.reference,
        kl_coefficient=_per_token(jnp.broadcast_to(shaping.kl_weight, kl_BA.shape), where.attempt),
    )

    frozen = None if reference is None else lora.weights(reference, base, s.lora)
    part = _loss_of_part(params, base, frozen, s, choices)
    rows = (batch.tokens, where, terms, known.hidden)
    (loss, gradient), (logp_BN, entropy_BN) = accumulate(part, rows, batch.length, s.split)
    divisor = losses.normalizer(where.mask, choices.normalizer, s.max_attempt_tokens)
    metrics = {
        "loss": loss / divisor,
        "logp_gap": jnp.max(jnp.where(where.mask, jnp.abs(logp_BN - behaviour_BN), 0.0)),
        **_per_attempt_metrics(batch, where, kl_BA, entropy_BN),
        **_signal_metrics(batch, advantage_BA, s.samples),
        ADVANTAGES: advantage_BA,
        **skipped,
    }
    return jax.tree.map(lambda g: g / divisor, gradient), metrics


def _advantages(
    batch: Batch, where: Written, kl_BA, shaping: Shaping, coefficients, choices, settings
) -> jax.Array:
    """From rewards as shaped, less the penalty for length, plus the reward of a true verdict."""
    truncation = TRUNCATIONS[choices.truncation]
    kl_in_reward_BA = kl_BA if choices.kl_estimator == "k1" else jnp.zeros_like(kl_BA)
    shaped_BA = shape(batch.reward, kl_in_reward_BA, shaping)
    if truncation.penalized:
        length_BA = _lengths(where, kl_BA.shape[1])
        window = coefficients.overlong_tokens
        shaped_BA -= overlong(length_BA, settings.max_attempt_tokens, window)
    if batch.true_verdict is not None:
        # Added last: neither the bonus nor the discount multiplies it.
        shaped_BA += coefficients.verdict * batch.true_verdict

    def compare(shaped_BA):
        shaped_QGA = shaped_BA.reshape(-1, settings.samples, shaped_BA.shape[1])
        return advantages(shaped_QGA, choices.baseline, settings.siblings)

    advantage_QGA = compare(shaped_BA)
    scale_Q1A = deviation(advantage_QGA) if choices.standardize else 1.0
    advantage_BA = (advantage_QGA / scale_Q1A).reshape(shaped_BA.shape)
    if truncation.masked:
        # Without its reward an attempt still pays for its KL: shaping and baselines are sums, so
        # the part of the KL is what they make of rewards of 0.
        kl_QGA = compare(shape(jnp.zeros_like(batch.reward), kl_in_reward_BA, shaping))
        of_kl_BA = (kl_QGA / scale_Q1A).reshape(shaped_BA.shape)
        advantage_BA = jnp.where(batch.truncated, of_kl_BA, advantage_BA)
    return advantage_BA


def _loss_of_part(params, base, reference, settings: LearnerSettings, choices: Choices):
    """(tokens, where, terms, reference's hidden states) of some rows -> (their loss and its
    gradient), (logp_BN, entropy_BN)."""

    def loss_sum(params, tokens_BT, where, terms, reference_BND):
        s = settings.likelihood
        weights = lora.weights(params, base, settings.lora)
        hidden_BND = token_logprobs.hidden_before(weights, tokens_BT, where, s)
        return token_logprobs.loss(
            weights,
            hidden_BND,
            where.take(tokens_BT),
            where,
            terms,
            s,
            kl_estimator=choices.kl_estimator,
            weighted=choices.importance_weights,
            reference=reference,
            reference_BND=reference_BND,
        )

    def part(rows):
        (loss, found), gradient = jax.value_and_grad(loss_sum, has_aux=True)(params, *rows)
        return (loss, gradient), found

    return part


def _per_token(value_BA: jax.Array, attempt_BN: jax.Array) -> jax.Array:
    """Each token gets its own attempt's value; 0 where the policy wrote nothing."""
    picked_BN = jnp.take_along_axis(value_BA, jnp.maximum(attempt_BN - 1, 0), axis=1)
    return jnp.where(attempt_BN > 0, picked_BN, 0.0)


def _lengths(where: Written, attempts: int) -> jax.Array:
    """Tokens of each attempt, [B, A] float32."""
    return kl.per_attempt(where.mask.astype(jnp.float32), where.attempt, attempts)


def _per_attempt_metrics(batch: Batch, where, kl_BA, entropy_BN) -> dict[str, jax.Array]:
    attempts = batch.reward.shape[1]
    length_BA = _lengths(where, attempts)
    entropy_BA = kl.per_attempt(entropy_BN, where.attempt, attempts)
    tokens_A = jnp.maximum(jnp.sum(length_BA, axis=0), 1.0)
    metrics: dict[str, jax.Array] = {}
    for a in range(attempts):
        own_B = _own(batch, a)
        tokens = tokens_A[a] if own_B is None else jnp.where(jnp.any(own_B), tokens_A[a], jnp.nan)
        metrics |= {
            f"reward/attempt{a + 1}": jnp.mean(batch.reward[:, a], where=own_B),
            f"kl/attempt{a + 1}": jnp.mean(kl_BA[:, a], where=own_B),
            f"entropy/attempt{a + 1}": jnp.sum(entropy_BA[:, a]) / tokens,
            f"length/attempt{a + 1}": jnp.mean(length_BA[:, a], where=own_B),
            f"truncated/attempt{a + 1}": jnp.mean(
                batch.truncated[:, a].astype(jnp.float32), where=own_B
            ),
        }
    return metrics


def _signal_metrics(batch: Batch, advantage_BA, samples: int) -> dict[str, jax.Array]:
    """The learning signal: share of problems whose samples differ in reward; mean |advantage|."""
    attempts = batch.reward.shape[1]
    reward_QGA = batch.reward.reshape(-1, samples, attempts)
    mixed_QA = jnp.max(reward_QGA, axis=1) > jnp.min(reward_QGA, axis=1)
    metrics: dict[str, jax.Array] = {}
    for a in range(attempts):
        own_B = _own(batch, a)
        own_Q = None if own_B is None else own_B[::samples]
        metrics |= {
            f"mixed/attempt{a + 1}": jnp.mean(mixed_QA[:, a].astype(jnp.float32), where=own_Q),
            f"advantage/attempt{a + 1}": jnp.mean(jnp.abs(advantage_BA[:, a]), where=own_B),
        }
    return metrics


def _own(batch: Batch, a: int) -> jax.Array | None:
    """Rows whose attempt of index `a` the policy wrote, [B] bool; None: all.

    The mean of no rows is NaN.
    """
    return None if a or batch.given is None else ~batch.given


def _global_norm(tree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(tree)))
