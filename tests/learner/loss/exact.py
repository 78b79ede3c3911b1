"""A world small enough to write out: every episode of two attempts, and the exact objective.

Three tokens (one ends an attempt), at most two per attempt: seven attempts, so 49 episodes. The
objective below sums over all of them with their probabilities and is differentiated as a whole:
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
TEMPERATURE = 0.7
MAX_TOKENS = 2
PROMPT, INSTRUCTION = [1], [2]
COLUMNS = len(PROMPT) + len(INSTRUCTION) + 2 * MAX_TOKENS
# Every attempt: it ends with the end token or with its last allowed token.
ATTEMPTS = [[fakes.END]] + [[a, b] for a in (1, 2) for b in (0, 1, 2)]
I = len(ATTEMPTS)

# Episode I * i + j is attempt i, then attempt j.
_ROWS = [
    fakes.row((0, PROMPT), (1, first), (0, INSTRUCTION), (2, second), columns=COLUMNS)
    for first, second in itertools.product(ATTEMPTS, ATTEMPTS)
]
TOKENS_BT, ATTEMPT_BT, LENGTH_B = (np.stack(x) for x in zip(*_ROWS, strict=True))

# Rewards, any bits: r_1 by the first attempt, r_2 by both, so that no two terms look alike.
REWARD_I = np.array([1, 0, 0, 1, 0, 1, 1], np.float32)
REWARD_II = np.random.default_rng(0).integers(0, 2, (I, I)).astype(np.float32)
REWARD_BA = np.stack([np.repeat(REWARD_I, I), REWARD_II.reshape(-1)], axis=1)


def next_log_probs(params) -> jax.Array:
    """Log-probs of every next token after every prefix, [B, T, V]."""
    return jax.nn.log_softmax(
        transformer.logits(CONFIG, params, jnp.asarray(TOKENS_BT)) / TEMPERATURE
    )


def attempt_log_probs(next_BTV) -> tuple[jax.Array, jax.Array]:
    """log p(y_1), [I], and log p(y_2 | y_1), [I, I]."""
    row, column = np.nonzero(ATTEMPT_BT)
    token_logp_N = next_BTV[row, column - 1, TOKENS_BT[row, column]]
    first_II, second_II = (
        jnp.zeros(len(TOKENS_BT)).at[row].add(token_logp_N * here_N).reshape(I, I)
        for here_N in (ATTEMPT_BT[row, column] == 1, ATTEMPT_BT[row, column] == 2)
    )
    return first_II[:, 0], second_II


def objective(params, reference, stage, train_A) -> jax.Array:
    """What a stage with the KL in its reward maximises.

    Args:
      stage: the numbers of a stage.
      train_A: 1 for an attempt whose tokens are trained, else 0.
    """
    fixed = jax.lax.stop_gradient
    first_I, second_II = attempt_log_probs(next_log_probs(params))
    ref_first_I, ref_second_II = attempt_log_probs(next_log_probs(reference))
    r1_I, r2_II = REWARD_I, REWARD_II

    kl1 = jnp.sum(jnp.exp(first_I) * (first_I - ref_first_I))
    own1_I = stage.reward_attempt1 * r1_I
    turn1 = jnp.sum(jnp.exp(first_I) * own1_I) - stage.kl_attempt1 * kl1

    kl2_I = jnp.sum(jnp.exp(second_II) * (second_II - ref_second_II), axis=1)
    own2_II = stage.reward_attempt2 * r2_II + stage.bonus * (r2_II - r1_I[:, None])
    turn2_I = jnp.sum(jnp.exp(second_II) * own2_II, axis=1) - stage.kl_attempt2 * kl2_I

    turn2 = jnp.sum(fixed(jnp.exp(first_I)) * turn2_I)
    later = jnp.sum(jnp.exp(first_I) * fixed(turn2_I))  # what attempt 1 earns attempt 2
    return train_A[0] * (turn1 + stage.discount * later) + train_A[1] * turn2


def kl_by_tokens(params, reference, stage, forward) -> jax.Array:
    """beta_a times the KL at each token that the policy may write, prefixes held fixed.

    Reverse is KL(policy || reference) of next tokens, forward KL(reference || policy).
    """
    next_BTV, ref_BTV = next_log_probs(params), next_log_probs(reference)
    forward_BT = jnp.sum(jnp.exp(ref_BTV) * (ref_BTV - next_BTV), axis=-1)
    reverse_BT = jnp.sum(jnp.exp(next_BTV) * (next_BTV - ref_BTV), axis=-1)
    kl_BT = forward * forward_BT + (1 - forward) * reverse_BT
    beta_BT = stage.kl_attempt1 * (ATTEMPT_BT == 1) + stage.kl_attempt2 * (ATTEMPT_BT == 2)
    kl_B = jnp.sum(beta_BT[:, 1:] * kl_BT[:, :-1], axis=1)
    return jnp.sum(jax.lax.stop_gradient(probabilities(next_BTV)) * kl_B)


@jax.jit
@jax.grad
def loss_gradient(params, reference, reward_stage, kl_stage, forward, train_A):
    """Of the loss, with the KL in the reward by one stage and at every token by another."""
    reward = objective(params, reference, reward_stage, train_A)
    return kl_by_tokens(params, reference, kl_stage, forward) - reward


def probabilities(next_BTV) -> jax.Array:
    """Of every episode, [B]."""
    first_I, second_II = attempt_log_probs(next_BTV)
    return jnp.exp(first_I[:, None] + second_II).reshape(-1)


@jax.jit
def episodes(params) -> tuple[Batch, jax.Array]:
    """Every episode once, with its log-probs under the policy; and its probability."""
    next_BTV = next_log_probs(params)
    row, column = np.nonzero(ATTEMPT_BT)
    logp_N = next_BTV[row, column - 1, TOKENS_BT[row, column]]
    batch = Batch(
        tokens=jnp.asarray(TOKENS_BT),
        attempt=jnp.asarray(ATTEMPT_BT),
        logp=jnp.zeros(TOKENS_BT.shape).at[row, column].set(logp_N),
        length=jnp.asarray(LENGTH_B),
        reward=jnp.asarray(REWARD_BA),
        truncated=jnp.zeros(REWARD_BA.shape, bool),
    )
    return batch, probabilities(next_BTV)
