"""Baselines: how much better a sample was than expected. One baseline per attempt.

`standardize` is an option and off by default: dividing by the standard deviation cancels the bonus
at discount 0, where the bonus is a change of scale (config/checks.py refuses the two together).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def leave_one_out(shaped_QGA: jax.Array) -> jax.Array:
    """Each sample against the mean of its problem's others; sums to 0 per problem and attempt.

    Raises: ValueError if G < 2.  Source: RLOO, arXiv 2402.14740.
    """
    samples = shaped_QGA.shape[1]
    if samples < 2:
        raise ValueError(
            f"leave-one-out compares samples of one problem and got {samples} of each. "
            "Set rollout.samples_per_problem to 2 or more, or baseline to 'batch_mean'."
        )
    # R - (sum - R) / (G - 1) = (R - mean) * G / (G - 1)
    centred_QGA = shaped_QGA - jnp.mean(shaped_QGA, axis=1, keepdims=True)
    return centred_QGA * (samples / (samples - 1))


def sibling(shaped_QGA: jax.Array, siblings: int) -> jax.Array:
    """Compares later attempts that share a first attempt, and first attempts between families.

    A problem's G samples are families of `siblings` adjacent rows with the same first attempt.
    Within a family the term -alpha * r_1 of the bonus is the same for all, and so drops out. First
    attempts are compared leave-one-out, each family counting once.

    Raises: ValueError if there are not two families, or not two siblings.
    """
    problems, samples, attempts = shaped_QGA.shape
    families = samples // siblings
    if siblings < 2 or families < 2 or samples % siblings:
        raise ValueError(
            f"{samples} samples of a problem must be at least two families of at least two "
            f"siblings each, and rollout.siblings is {siblings}. Set rollout.samples_per_problem "
            "to a multiple of rollout.siblings."
        )
    shaped_QFMA = shaped_QGA.reshape(problems, families, siblings, attempts)
    first_QF1 = jnp.mean(shaped_QFMA[..., :1], axis=2)
    first_QFM1 = jnp.broadcast_to(
        leave_one_out(first_QF1)[:, :, None], (problems, families, siblings, 1)
    )
    later_QFMA = leave_one_out(shaped_QFMA[..., 1:].reshape(-1, siblings, attempts - 1))
    later_QFMA = later_QFMA.reshape(problems, families, siblings, attempts - 1)
    return jnp.concatenate([first_QFM1, later_QFMA], axis=-1).reshape(shaped_QGA.shape)


def batch_mean(shaped_QGA: jax.Array) -> jax.Array:
    """Each sample against the mean of the whole batch, per attempt (biased by a factor 1 - 1/B)."""
    return shaped_QGA - jnp.mean(shaped_QGA, axis=(0, 1), keepdims=True)


def none(shaped_QGA: jax.Array) -> jax.Array:
    """The shaped reward itself."""
    return shaped_QGA


def deviation(advantage_QGA: jax.Array) -> jax.Array:
    """The standard deviation over a problem's samples, per attempt: `standardize` divides by it.

    Returns: [Q, 1, A]; 1 where all samples did equally well, so that their advantages stay 0.
    Source: GRPO, arXiv 2402.03300.
    """
    deviation_Q1A = jnp.std(advantage_QGA, axis=1, keepdims=True)
    return jnp.where(deviation_Q1A > 1e-6, deviation_Q1A, 1.0)


BASELINES: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "leave_one_out": lambda shaped_QGA, siblings: leave_one_out(shaped_QGA),
    "sibling": sibling,
    "batch_mean": lambda shaped_QGA, siblings: batch_mean(shaped_QGA),
    "none": lambda shaped_QGA, siblings: none(shaped_QGA),
}


def advantages(shaped_QGA: jax.Array, baseline: str, siblings: int = 1) -> jax.Array:
    """Shaped rewards less the baseline of that name, a key of BASELINES."""
    return BASELINES[baseline](shaped_QGA, siblings)
