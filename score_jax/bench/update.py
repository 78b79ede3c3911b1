"""Updates: tokens per second of a whole train step, and the memory it takes.

One step of Stage I's objective: the reference's log-probs, forward and backward of the policy, KL
in the reward, clipped AdamW. Rows are those of the workload's rollout, filled with random tokens.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.bench import timing
from score_jax.bench.workloads import Workload
from score_jax.config import OptimizerSettings, StageSettings
from score_jax.learner import step
from score_jax.learner.likelihood import LikelihoodSettings
from score_jax.learner.step import LearnerSettings
from score_jax.structs import Batch

STAGE = StageSettings(
    steps=1, learning_rate=1e-5, kl_attempt1=0.1, kl_attempt2=0.01, baseline="batch_mean"
)


def measure(work: Workload, reps: int) -> dict[str, Any]:
    """Compiles and times the update of the workload's episodes."""
    s = work.settings
    settings = LearnerSettings(
        likelihood=LikelihoodSettings(model=s.model, policy=s.policy, dtype=s.dtype),
        optimizer=OptimizerSettings(),
        samples=s.samples,
        max_attempt_tokens=s.max_attempt_tokens,
        lora=work.lora,
    )
    batch = episodes(work)
    trained, reference = (work.adapters, {}) if work.base else (work.params, work.params)
    state = step.init(jax.tree.map(jnp.copy, trained), settings)
    compile_sec, program = timing.seconds_of(
        step.lower(state, reference, batch, stage=STAGE, base=work.base).compile
    )
    seconds = []
    for repetition in range(reps + 1):
        update = functools.partial(
            step.train_step, state, reference, batch, stage=STAGE, base=work.base
        )
        elapsed, (state, _) = timing.seconds_of(update)
        if repetition:  # the first warms up
            seconds.append(elapsed)
    rows, columns = batch.tokens.shape
    return {
        "workload": work.name,
        **timing.rate(rows * columns, seconds),
        "compile_sec": compile_sec,
        "peak_memory_bytes": timing.peak_memory_bytes(program),
        "rows": rows,
        "columns": columns,
        **timing.where(),
    }


def episodes(work: Workload) -> Batch:
    """Rows as the workload's rollout lays them out, of random tokens and random rewards."""
    s, prompts = work.settings, work.prompts
    rng = np.random.default_rng(0)
    rows, columns = len(prompts.tokens) * s.samples, s.row_tokens(prompts.tokens.shape[1])
    limit_BA = work.limit_QGA.reshape(rows, -1)
    attempt_BT = np.zeros((rows, columns), np.int32)
    length_B = np.repeat(prompts.length, s.samples)
    for a in range(s.attempts):
        if a:
            length_B = length_B + len(s.instruction)
        for b in range(rows):
            attempt_BT[b, length_B[b] : length_B[b] + limit_BA[b, a]] = a + 1
        length_B = length_B + limit_BA[:, a]
    return Batch(
        tokens=jnp.array(rng.integers(3, s.model.vocab_size, (rows, columns)), jnp.int32),
        attempt=jnp.array(attempt_BT),
        logp=jnp.where(attempt_BT > 0, -1.0, 0.0),
        length=jnp.array(length_B, jnp.int32),
        reward=jnp.array(rng.integers(0, 2, (rows, s.attempts)), jnp.float32),
        truncated=jnp.zeros((rows, s.attempts), bool),
    )
