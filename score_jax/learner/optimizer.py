"""Optimizer and learning rate: optax, with the rate outside so that no new stage recompiles."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from score_jax.config.settings import OptimizerSettings

# Scales a clipped gradient: settings -> transformations. Adafactor has no momentum here and no
# relative step sizes. Sources: Adam, arXiv 1412.6980; AdamW, 1711.05101; Adafactor, 1804.04235,
# whose second moments take the memory of a row and a column per matrix.
OPTIMIZERS: dict[str, Callable[[OptimizerSettings], list[optax.GradientTransformation]]] = {
    "adam": lambda s: [optax.scale_by_adam(s.beta1, s.beta2, s.epsilon)],
    "adafactor": lambda s: [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)],
}

# How much of the decay is done, by the share of the steps after warm-up that are done.
SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "constant": jnp.zeros_like,
    "linear": lambda done: done,
    "cosine": lambda done: 0.5 * (1 - jnp.cos(jnp.pi * done)),
}


def make(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Gradient to update direction; the caller multiplies by minus the learning rate."""
    steps = []
    if settings.clip_norm > 0:
        steps.append(optax.clip_by_global_norm(settings.clip_norm))
    steps += OPTIMIZERS[settings.name](settings)
    if settings.weight_decay > 0:
        steps.append(optax.add_decayed_weights(settings.weight_decay))
    return optax.chain(*steps)


def learning_rate(step: jax.Array, coefficients) -> jax.Array:
    """The rate at a step of a stage: linear warm-up, then decay to `final_fraction` of the peak.

    Args:
      step: steps already taken in this stage.
      coefficients: reads `learning_rate`, `warmup_steps`, `steps`, `final_fraction`, and
        `schedule`: 1 for the stage's schedule, 0 for the others. Arithmetic, not branches, so that
        stages with different schedules share one compiled step.
    """
    c = coefficients
    warm = jnp.minimum(1.0, (step + 1) / jnp.maximum(c.warmup_steps, 1))
    done = (step - c.warmup_steps) / jnp.maximum(c.steps - c.warmup_steps, 1)
    done = jnp.clip(done, 0.0, 1.0)
    decay = sum(c.schedule[name] * decay(done) for name, decay in SCHEDULES.items())
    return c.learning_rate * warm * (1.0 - (1.0 - c.final_fraction) * decay)
