"""Optimizer and learning rate: optax, the rate outside so that a new stage compiles nothing."""

import jax
import jax.numpy as jnp
import optax

from score_jax.config.settings import OptimizerSettings


def make(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Gradient to update direction; the caller multiplies by minus the learning rate.

    Sources: Adam, arXiv 1412.6980; AdamW, 1711.05101; Adafactor, 1804.04235, whose second moments
    take the memory of a row and a column per matrix, here without momentum and relative step sizes.
    """
    steps = []
    if settings.clip_norm > 0:
        steps.append(optax.clip_by_global_norm(settings.clip_norm))
    if settings.name == "adafactor":
        steps.append(optax.scale_by_factored_rms())
        steps.append(optax.clip_by_block_rms(1.0))
    else:
        steps.append(optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon))
    if settings.weight_decay > 0:
        steps.append(optax.add_decayed_weights(settings.weight_decay))
    return optax.chain(*steps)


def learning_rate(step: jax.Array, coefficients) -> jax.Array:
    """The rate at a step of a stage: linear warm-up, then decay to `final_fraction` of the peak.

    Args:
      step: steps already taken in this stage.
      coefficients: reads `learning_rate`, `warmup_steps`, `steps`, `final_fraction`, and `linear`,
        `cosine`: 1 for the schedule's shape, else 0 (both 0: constant). Arithmetic, not branches,
        so that stages with different schedules share one compiled step.
    """
    c = coefficients
    warm = jnp.minimum(1.0, (step + 1) / jnp.maximum(c.warmup_steps, 1))
    done = (step - c.warmup_steps) / jnp.maximum(c.steps - c.warmup_steps, 1)
    done = jnp.clip(done, 0.0, 1.0)
    decay = c.linear * done + c.cosine * 0.5 * (1 - jnp.cos(jnp.pi * done))
    return c.learning_rate * warm * (1.0 - (1.0 - c.final_fraction) * decay)
