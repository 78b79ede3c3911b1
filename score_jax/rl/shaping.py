"""From graded attempts to what each attempt's tokens are rewarded with.

    R_a       = w_a * r_a + alpha * (r_a - r_{a-1})  - beta_a * KL_a    (bonus: a > 1)
    shaped_a  = R_a + gamma * R_{a+1} + gamma^2 * R_{a+2} + ...

gamma, the discount between attempts, is 0 in the paper (figure 9): the tokens of an attempt are
multiplied by that attempt's own reward only. With gamma > 0 the bonus on attempt 2 rewards being
*wrong* first, which is why it is not the default.

Source: SCoRe, arXiv 2409.12917, equations 3 to 5 and appendix A.4.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


class Shaping(flax.struct.PyTreeNode):
    """The numbers of a stage that shape its rewards, in the terms above."""

    reward_weight: jax.Array  # w, [A]
    kl_weight: jax.Array  # beta, [A]
    bonus: Any  # alpha, scalar
    discount: Any  # gamma, scalar

    @classmethod
    def of(cls, stage: Any, attempts: int) -> "Shaping":
        """From a StageSettings, or from its numbers traced (learner/step.py, Coefficients)."""
        # Attempt 1 alone is early; with three attempts in Stage I(b) two are.
        early_A = jnp.arange(1, attempts + 1) <= stage.early_attempts
        return cls(
            reward_weight=jnp.where(early_A, stage.reward_attempt1, stage.reward_attempt2),
            kl_weight=jnp.where(early_A, stage.kl_attempt1, stage.kl_attempt2),
            bonus=stage.bonus,
            discount=stage.discount,
        )


def shape(reward_BA: jax.Array, kl_BA: jax.Array, stage: Any) -> jax.Array:
    """What each attempt's tokens are multiplied by, before any baseline.

    Args:
      reward_BA: from grading, any finite numbers.
      kl_BA: nats per attempt against the reference, summed over its tokens; a constant here (the
        k1 estimator inside the reward). Zeros where the KL is a loss of its own.
      stage: a Shaping, or a StageSettings to make it from.

    Returns: shaped_BA, without gradient.
    """
    assert reward_BA.ndim == 2 and kl_BA.shape == reward_BA.shape, (reward_BA.shape, kl_BA.shape)
    for x_BA in (reward_BA, kl_BA):
        assert jnp.issubdtype(x_BA.dtype, jnp.floating), x_BA.dtype
    attempts = reward_BA.shape[1]
    s = stage if isinstance(stage, Shaping) else Shaping.of(stage, attempts)
    assert s.reward_weight.shape == s.kl_weight.shape == (attempts,), s
    progress_BA = jnp.diff(reward_BA, axis=1, prepend=reward_BA[:, :1])  # 0 for attempt 1
    own_BA = s.reward_weight * reward_BA + s.bonus * progress_BA - s.kl_weight * kl_BA
    lag = jnp.arange(attempts)[None, :] - jnp.arange(attempts)[:, None]  # to - from
    # 0 ** 0 is 1: with gamma = 0 an attempt keeps its own reward and nothing else.
    weight_AA = jnp.where(lag >= 0, jnp.float32(s.discount) ** jnp.maximum(lag, 0), 0.0)
    return jax.lax.stop_gradient(own_BA @ weight_AA.T)


def overlong(length_BA: jax.Array, limit: int, window) -> jax.Array:
    """What an attempt loses for its length: 0 up to `window` tokens before the limit, then up to 1.

    Source: the soft overlong punishment of DAPO, arXiv 2503.14476, equation 13.
    """
    return jnp.clip((length_BA - (limit - window)) / jnp.maximum(window, 1), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Truncation:
    """What a truncated attempt costs besides its reward, which is 0."""

    masked: bool = False  # its reward is not learned from; its KL is
    penalized: bool = False  # attempts lose `overlong` before they reach the limit


TRUNCATIONS = {
    "zero": Truncation(),
    "mask": Truncation(masked=True),
    "penalty": Truncation(penalized=True),
}
