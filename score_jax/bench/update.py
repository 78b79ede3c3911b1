"""Updates: tokens per second of a whole train step, its memory, and what takes the memory.

One step of Stage I's objective: the log-probs of the KL, forward and backward of the policy, KL in
the reward, clipped Adam. `log_probs_share` is the log-probs' share of it; a run computes them while
it grades. Rows are those of the workload's rollout, filled with random tokens.
"""

import dataclasses
import functools
import resource
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.bench import flops, temporaries, timing
from score_jax.bench.workloads import Workload
from score_jax.config.settings import MemorySettings, StageSettings
from score_jax.learner import micro_batches, sampled_logprobs, step
from score_jax.learner.loss.token_logprobs import LikelihoodSettings
from score_jax.learner.settings import LearnerSettings
from score_jax.runtime import sharding, topology
from score_jax.structs import Batch

STAGE = StageSettings(
    steps=1, learning_rate=1e-5, kl_attempt1=0.1, kl_attempt2=0.01, baseline="batch_mean"
)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to compute the workload's update, to compare with another way."""

    memory: MemorySettings
    reference: bool = True  # compute the reference's log-probs and the KL


def measure(work: Workload, reps: int, against: Variant | None = None) -> dict[str, Any]:
    """Compiles and times the update of the workload's episodes.

    Args:
      against: another variant, timed in turn: `against` and `times_against` of the result.
    """
    variants = {"ours": Variant(work.memory)} | ({"other": against} if against else {})
    batch = episodes(work)
    rows, columns = batch.tokens.shape
    compile_sec, programs, calls = {}, {}, {}
    for name, variant in variants.items():
        lowered, calls[name], log_probs = _update(work, variant, batch)
        if name == "ours":
            calls["log_probs"] = log_probs
        compile_sec[name], programs[name] = timing.seconds_of(lowered.compile)
    seconds = timing.interleaved(calls, reps)
    speed = timing.rate(rows * columns, seconds["ours"])
    middle = {name: statistics.median(seconds[name]) for name in ("ours", "log_probs")}
    model_flops = flops.of_update(work.settings.model, batch)
    flops_per_sec = model_flops * speed["tokens_per_sec"] / (rows * columns)
    result = {
        "workload": work.name,
        **speed,
        "log_probs_share": middle["log_probs"] / middle["ours"],
        "compile_sec": compile_sec["ours"],
        "peak_memory_bytes": timing.peak_memory_bytes(programs["ours"]),
        "peak_process_bytes": _peak_process_bytes(),
        "rows": rows,
        "columns": columns,
        "written_tokens": int(jnp.sum(batch.attempt > 0)),
        "vocabulary": work.settings.model.vocab_size,
        "plan": dataclasses.asdict(split_of(work, work.memory, _platform(None))),
        "memory": dataclasses.asdict(work.memory),
        "model_flops_per_sec": flops_per_sec,
        "model_flops_utilisation": flops.utilisation(flops_per_sec, work.settings.dtype),
        "largest_temporaries": temporaries.largest(programs["ours"].as_text()),
    }
    if against:
        other = timing.rate(rows * columns, seconds["other"])
        other["compile_sec"] = compile_sec["other"]
        other["peak_memory_bytes"] = timing.peak_memory_bytes(programs["other"])
        result["against"] = {**dataclasses.asdict(against), **other}
        result["times_against"] = result["tokens_per_sec"] / other["tokens_per_sec"]
    return result | timing.where()


def memory_of(work: Workload, name: str = "") -> dict[str, Any]:
    """The memory of the update by XLA's analysis; nothing is run, and params are only shapes.

    name: a topology; compiles for one chip of it. Empty: compiles for the device here.
    """
    chip = topology.one_chip(name) if name else None
    lowered, *_ = _update(work, Variant(work.memory), episodes(work), shapes=True, chip=chip)
    compile_sec, program = timing.seconds_of(lowered.compile)
    memory = program.memory_analysis()
    return {
        "workload": work.name,
        "topology": name,
        "compile_sec": compile_sec,
        "peak_memory_bytes": timing.peak_memory_bytes(program),
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
        "vocabulary": work.settings.model.vocab_size,
        "plan": dataclasses.asdict(split_of(work, work.memory, _platform(chip))),
        "memory": dataclasses.asdict(work.memory),
        "largest_temporaries": temporaries.largest(program.as_text()),
        **timing.where(),
    }


def _platform(chip: jax.sharding.SingleDeviceSharding | None) -> str:
    return "tpu" if chip else jax.default_backend()


def split_of(work: Workload, memory: MemorySettings, platform: str) -> micro_batches.Split:
    """How the update splits the rows into parts."""
    s = work.settings
    return micro_batches.choose(
        memory,
        s.model,
        rows=len(work.prompts.tokens) * s.samples,
        columns=work.columns,
        attempt_tokens=s.max_attempt_tokens,
        shards=sharding.batch_size(work.mesh) if work.mesh else 1,
        platform=platform,
    )


def _update(
    work: Workload,
    variant: Variant,
    batch: Batch,
    *,
    shapes: bool = False,
    chip: jax.sharding.SingleDeviceSharding | None = None,
) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """The lowered update, a function that runs it on a state of its own, with the log-probs of its
    KL, and one that runs these alone.

    shapes: lower for shapes alone, on `chip`; the functions then do nothing.
    """
    s = work.settings
    settings = LearnerSettings(
        likelihood=LikelihoodSettings(
            model=s.model,
            policy=s.policy,
            dtype=s.dtype,
            chunk=variant.memory.chunk,
            remat=variant.memory.remat,
            attention=work.attention,
            mesh=None if chip else work.mesh,
        ),
        optimizer=work.optimizer,
        samples=s.samples,
        max_attempt_tokens=s.max_attempt_tokens,
        split=split_of(work, variant.memory, _platform(chip)),
        lora=work.lora,
    )
    trained = work.adapters if work.base else work.params
    reference = ({} if work.base else work.params) if variant.reference else None
    started = functools.partial(step.init, settings=settings)
    if shapes:
        state = jax.eval_shape(started, trained)
        given = (state, reference, batch, work.base)
        state, reference, batch, base = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=chip), given
        )
        lowered = step.lower(state, reference, batch, stage=STAGE, base=base)
        return lowered, lambda: None, lambda: None
    state = started(jax.tree.map(jnp.copy, trained))
    platform = jax.default_backend()
    lowered = step.lower(state, reference, batch, stage=STAGE, base=work.base, platform=platform)

    def call():
        nonlocal state
        state, metrics = step.train_step(state, reference, batch, stage=STAGE, base=work.base)
        return state, metrics

    def log_probs():
        if reference is None:
            return None
        return sampled_logprobs.of(state.params, reference, batch, settings, base=work.base)

    return lowered, call, log_probs


def _peak_process_bytes() -> int:
    """The peak memory of this process so far; on a CPU that includes the params."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def episodes(work: Workload) -> Batch:
    """Rows as the workload's rollout lays them out, of random tokens and random rewards."""
    s, prompts = work.settings, work.prompts
    rng = np.random.default_rng(0)
    rows, columns = len(prompts.tokens) * s.samples, work.columns
    limit_BA = work.limit_QGA.reshape(rows, -1)
    attempt_BT = np.zeros((rows, columns), np.int32)
    length_B = np.repeat(prompts.length, s.samples)
    for a in range(s.attempts):
        if a:
            own = prompts.instructions
            asked = np.repeat(own.length[:, 0], s.samples) if own else len(s.instruction)
            length_B = length_B + asked
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
