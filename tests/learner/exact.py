"""A world small enough to write out: every episode of two attempts, and the exact objective.

Three tokens (one ends an attempt), at most two per attempt: seven attempts, so 49 episodes. The
objective below sums over all of them with their probabilities and is differentiated as it stands:
no samples, advantages, baselines or score functions, and the KL terms are true divergences. What
the method does not train is held fixed by stop_gradient.

Source: SCoRe, arXiv 2409.12917, equations 2 to 5 and appendix A.4.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.model import transformer
from score_jax.structs import Batch
from tests import fakes

CONFIG = fakes.model(vocab_size=3)
MAX_TOKENS = 2
PROMPT, INSTRUCTION = [1], [2]
COLUMNS = len(PROMPT) + len(INSTRUCTION) + 2 * MAX_TOKENS
# Every attempt: it ends with the end token or with its last allowed token.
ATTEMPTS = [[fakes.END]] + [[a, b] for a in (1, 2) for b in (0, 1, 2)]
I = len(ATTEMPTS)  # noqa: E741

# Episode I * i + j is attempt i, then attempt j.
_ROWS = [
    fakes.row((0, PROMPT), (1, first), (0, INSTRUCTION), (2, second), columns=COLUMNS)
    for first, second in itertools.product(ATTEMPTS, ATTEMPTS)
]
TOKENS_BT, ATTEMPT_BT, LENGTH_B = (np.stack(x) for x in zip(*_ROWS, strict=True))

# Rewards, any bits: r_1 by the first attempt, r_2 by both, so that no two terms look alike.
REWARD_II = np.random.default_rng(0).integers(0, 2, (I, I)).astype(np.float32)
REWARD_BA = np.stack([np.repeat([1, 0, 0, 1, 0, 1, 1], I), REWARD_II.reshape(-1)], 1)
REWARD_BA = REWARD_BA.astype(np.float32)


def token_log_probs(params, temperature) -> jax.Array:
    """Log-prob of every token given those before it, [B, T]; 0 in column 0."""
    logits_BTV = transformer.logits(CONFIG, params, TOKENS_BT) / temperature
    logp_BTV = jax.nn.log_softmax(logits_BTV[:, :-1], axis=-1)
    logp_BT = jnp.take_along_axis(logp_BTV, TOKENS_BT[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(logp_BT, ((0, 0), (1, 0)))


def attempt_log_probs(params, temperature) -> tuple[jax.Array, jax.Array]:
    """log p(y_1), [I], and log p(y_2 | y_1), [I, I]."""
    logp_BT = token_log_probs(params, temperature)
    first_II, second_II = (
        jnp.sum(jnp.where(ATTEMPT_BT == a, logp_BT, 0.0), axis=1).reshape(I, I) for a in (1, 2)
    )
    return first_II[:, 0], second_II


def objective(params, reference, stage, temperature, train_A) -> jax.Array:
    """What the stage maximises.

    Args:
      stage: the numbers of a stage.
      train_A: 1 for an attempt whose tokens are trained, else 0.
    """
    fixed = jax.lax.stop_gradient
    first_I, second_II = attempt_log_probs(params, temperature)
    ref_first_I, ref_second_II = attempt_log_probs(reference, temperature)
    r1_I, r2_II = REWARD_BA[::I, 0], REWARD_II

    kl1 = jnp.sum(jnp.exp(first_I) * (first_I - ref_first_I))
    own1_I = stage.reward_attempt1 * r1_I
    turn1 = jnp.sum(jnp.exp(first_I) * own1_I) - stage.kl_attempt1 * kl1

    kl2_I = jnp.sum(jnp.exp(second_II) * (second_II - ref_second_II), axis=1)
    own2_II = stage.reward_attempt2 * r2_II + stage.bonus * (r2_II - r1_I[:, None])
    turn2_I = jnp.sum(jnp.exp(second_II) * own2_II, axis=1) - stage.kl_attempt2 * kl2_I

    turn2 = jnp.sum(fixed(jnp.exp(first_I)) * turn2_I)
    later = jnp.sum(jnp.exp(first_I) * fixed(turn2_I))  # what attempt 1 earns attempt 2
    return train_A[0] * (turn1 + stage.discount * later) + train_A[1] * turn2


def kl_by_tokens(params, reference, stage, temperature, forward) -> jax.Array:
    """beta_a times the KL at each token the policy might write, prefixes held fixed.

    The reverse KL(policy || reference), or if `forward` is 1 KL(reference || policy).
    """
    logp_BTV, ref_BTV = (
        jax.nn.log_softmax(transformer.logits(CONFIG, p, TOKENS_BT) / temperature)
        for p in (params, reference)
    )
    forward_BT = jnp.sum(jnp.exp(ref_BTV) * (ref_BTV - logp_BTV), axis=-1)
    reverse_BT = jnp.sum(jnp.exp(logp_BTV) * (logp_BTV - ref_BTV), axis=-1)
    kl_BT = forward * forward_BT + (1 - forward) * reverse_BT
    beta_BT = stage.kl_attempt1 * (ATTEMPT_BT == 1) + stage.kl_attempt2 * (ATTEMPT_BT == 2)
    per_row_B = jnp.sum(beta_BT[:, 1:] * kl_BT[:, :-1], axis=1)
    return jnp.sum(jax.lax.stop_gradient(episodes(params, temperature)[1]) * per_row_B)


@jax.jit
def episodes(params, temperature) -> tuple[Batch, jax.Array]:
    """Every episode once, with its log-probs under the policy, and its probability."""
    logp_BT = jnp.where(ATTEMPT_BT > 0, token_log_probs(params, temperature), 0.0)
    batch = Batch(
        tokens=TOKENS_BT,
        attempt=ATTEMPT_BT,
        logp=logp_BT,
        length=LENGTH_B,
        reward=REWARD_BA,
        truncated=np.zeros(REWARD_BA.shape, bool),
    )
    return batch, jnp.exp(jnp.sum(logp_BT, axis=1))
