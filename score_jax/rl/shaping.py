"""From graded attempts to what each attempt's tokens are rewarded with.

    R_a       = w_a * r_a + alpha * (r_a - r_{a-1})  - beta_a * KL_a    (bonus: a > 1)
    shaped_a  = R_a + gamma * R_{a+1} + gamma^2 * R_{a+2} + ...

gamma, the discount between attempts, is 0 in the paper (figure 9): the tokens of an attempt are
multiplied by that attempt's own reward only. With gamma > 0 the bonus on attempt 2 rewards being
*wrong* first, which is why it is not the default.

Source: SCoRe, arXiv 2409.12917, equations 3 to 5 and appendix A.4.
"""

import jax
import jax.numpy as jnp


def kl_coefficients(attempts: int, stage) -> jax.Array:
    """beta of every attempt, [A]: `kl_attempt1` of the early ones, then `kl_attempt2`."""
    return jnp.where(_early(attempts, stage), stage.kl_attempt1, stage.kl_attempt2)


def reward_weights(attempts: int, stage) -> jax.Array:
    """w of every attempt, [A]: `reward_attempt1` of the early ones, then `reward_attempt2`."""
    return jnp.where(_early(attempts, stage), stage.reward_attempt1, stage.reward_attempt2)


def overlong(length_BA: jax.Array, limit: int, window) -> jax.Array:
    """What an attempt loses for its length: 0 up to `window` tokens before the limit, then up to 1.

    Source: the soft overlong punishment of DAPO, arXiv 2503.14476, equation 13.
    """
    return jnp.clip((length_BA - (limit - window)) / jnp.maximum(window, 1), 0.0, 1.0)


def _early(attempts: int, stage) -> jax.Array:
    """Which attempts are early: attempt 1 alone, but with three attempts in Stage I(b) two."""
    return jnp.arange(1, attempts + 1) <= stage.early_attempts


def shape(reward_BA: jax.Array, kl_BA: jax.Array, stage) -> jax.Array:
    """What each attempt's tokens are multiplied by, before any baseline.

    Args:
      reward_BA: 0 or 1 from grading.
      kl_BA: nats per attempt against the reference, summed over its tokens; a constant here (the
        k1 estimator inside the reward). Zeros where the KL is a loss of its own.
      stage: reads `reward_attempt1`, `reward_attempt2` (w), `bonus` (alpha), `kl_attempt1`,
        `kl_attempt2` (beta), `early_attempts`, `discount` (gamma).

    Returns: shaped_BA, without gradient.
    """
    attempts = reward_BA.shape[1]
    progress_BA = jnp.diff(reward_BA, axis=1, prepend=reward_BA[:, :1])  # 0 for attempt 1
    own_BA = (
        reward_weights(attempts, stage) * reward_BA
        + stage.bonus * progress_BA
        - kl_coefficients(attempts, stage) * kl_BA
    )
    lag = jnp.arange(attempts)[None, :] - jnp.arange(attempts)[:, None]  # to - from
    # 0 ** 0 is 1: with gamma = 0 an attempt keeps its own reward and nothing else.
    weight_AA = jnp.where(lag >= 0, jnp.float32(stage.discount) ** jnp.maximum(lag, 0), 0.0)
    return jax.lax.stop_gradient(own_BA @ weight_AA.T)
