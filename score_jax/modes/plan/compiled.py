"""Compiles the rollout and the update of a config ahead of time, for chips that are not here.

programs(shapes)             yields Programs, the update first, as it is the likelier to fail
compile_one(program)         -> Compiled
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.modes.plan import hlo
from score_jax.modes.plan.estimate import ROLLOUT, UPDATE
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.rollout import episode, layout
from score_jax.rollout.prefill import prefill
from score_jax.runtime import sharding
from score_jax.structs import Batch, Instructions, PromptBatch

_NO_ROOM = "RESOURCE_EXHAUSTED"


class NoRoomError(Exception):
    """A program does not fit a chip's memory; the message is the compiler's."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a program, for one chip; in bytes."""

    seconds: float
    temporaries: int
    others: int  # batches in and out, and the padding of arguments
    code: int
    cost: hlo.Cost


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile."""

    name: str
    lowered: Any
    given: int  # bytes of its arguments that stay on the chip between steps


def programs(shapes: Shapes) -> Iterator[Program]:
    """Both programs of a step, lowered for the shapes' mesh."""
    rollout = _rollout(shapes)
    update = _update(shapes, rollout.out_info[0])
    state, experiment = shapes.state, shapes.experiment
    stays = (state.params, state.opt_state, shapes.frozen)
    yield Program(UPDATE, update, device_bytes(stays))
    yield Program(ROLLOUT, rollout, device_bytes(experiment.weights(state.params)))


def compile_one(program: Program) -> Compiled:
    """Raises: NoRoomError with the compiler's reason."""
    started = time.perf_counter()
    try:
        made = program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if _NO_ROOM not in str(error):
            raise
        raise NoRoomError(str(error).split("\n")[0].removeprefix(f"{_NO_ROOM}: ")) from error
    memory = made.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        seconds=time.perf_counter() - started,
        temporaries=memory.temp_size_in_bytes,
        others=memory.argument_size_in_bytes - program.given + results,
        code=memory.generated_code_size_in_bytes,
        cost=hlo.cost(made.as_text()),
    )


def _rollout(shapes: Shapes):
    experiment = shapes.experiment
    rollout = experiment.settings.rollout
    problems = rollout.problems_per_step
    prompts = PromptBatch(
        tokens=np.zeros((problems, rollout.max_prompt_tokens), np.int32),
        length=np.ones(problems, np.int32),
        index=np.zeros(problems, np.int32),
        problems=(),
        instructions=_instructions(experiment, problems),
    )
    settings, mesh = experiment.episode_settings(), experiment.mesh
    params = experiment.weights(shapes.state.params)
    key = jax.eval_shape(lambda: jax.random.key(0))
    limit_QGA = episode.limits(prompts, settings, None)
    how: dict[str, Any] = {"settings": settings, "mesh": mesh}

    def rollout_and_layout(params, tokens_QP, length_Q, *arguments):
        # One program here, several in a run: so the compiler reports the laid-out weights too.
        weights = layout.traced(params, **how)
        prompt = prefill(weights, tokens_QP, length_Q, **how)
        return episode.as_one_program(weights, prompt, tokens_QP, *arguments, **how)

    asked = episode.instructions(prompts, settings)
    arguments = (prompts.tokens, prompts.length, prompts.index, limit_QGA, key, asked)
    return jax.jit(rollout_and_layout).lower(params, *arguments)


def _instructions(experiment: Experiment, problems: int) -> Instructions | None:
    if not (width := experiment.instruction_tokens):
        return None
    length_QC = np.ones((problems, len(experiment.instructions)), np.int32)
    return Instructions(np.zeros((*length_QC.shape, width), np.int32), length_QC)


def _update(shapes: Shapes, rows: Any):
    """rows: the shapes of the Episode that the rollout returns."""
    by_row, base = sharding.rows(shapes.experiment.mesh), shapes.experiment.base
    batch = Batch(
        tokens=rows.tokens,
        attempt=rows.attempt,
        logp=rows.logp,
        length=rows.length,
        reward=jax.ShapeDtypeStruct(rows.truncated.shape, jnp.float32),  # type: ignore[arg-type]
        truncated=rows.truncated,
    )
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_row), batch)
    reference = {} if base else shapes.frozen
    return step.lower(shapes.state, reference, batch, stage=shapes.stage, base=base)
