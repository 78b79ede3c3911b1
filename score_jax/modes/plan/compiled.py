"""Compiles the rollout and the update of a config ahead of time, for chips that are not here.

programs(settings, shapes)   yields Programs, the update first, as it is the likelier to fail
compile_one(program)         -> Compiled
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.config.settings import Settings
from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.learner.step import TrainState
from score_jax.modes.plan import hlo
from score_jax.modes.plan.estimate import ROLLOUT, UPDATE
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.rollout import episode
from score_jax.runtime import sharding
from score_jax.structs import Batch, PromptBatch

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


def programs(settings: Settings, shapes: Shapes) -> Iterator[Program]:
    """Both programs of a step, lowered for the shapes' mesh. Raises: InputError as a run would."""
    experiment = Experiment.of_shapes(
        settings,
        shapes.model,
        shapes.template,
        shapes.mesh,
        shapes.frozen if shapes.lora.rank else None,
    )
    rollout = _rollout(experiment, shapes)
    update = _update(experiment, shapes, rollout.out_info[0])
    stays = (shapes.trained, shapes.opt_state, shapes.frozen)
    yield Program(UPDATE, update, device_bytes(stays))
    yield Program(ROLLOUT, rollout, device_bytes(shapes.weights))


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


def _rollout(experiment: Experiment, shapes: Shapes):
    rollout = experiment.settings.rollout
    problems = rollout.problems_per_step
    prompts = PromptBatch(
        tokens=np.zeros((problems, rollout.max_prompt_tokens), np.int32),
        length=np.ones(problems, np.int32),
        index=np.zeros(problems, np.int32),
        problems=(),
    )
    settings = experiment.episode_settings()
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = episode.call_arguments(shapes.weights, prompts, key, settings=settings)
    return episode.compiled.lower(*arguments, settings=settings, mesh=shapes.mesh)


def _update(experiment: Experiment, shapes: Shapes, rows: Any):
    """rows: the shapes of the Episode that the rollout returns."""
    by_row, everywhere = sharding.rows(shapes.mesh), sharding.replicated(shapes.mesh)
    fields: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_row)
        for name, x in (
            ("tokens", rows.tokens),
            ("attempt", rows.attempt),
            ("logp", rows.logp),
            ("length", rows.length),
            ("reward", jax.ShapeDtypeStruct(rows.truncated.shape, jnp.float32)),
            ("truncated", rows.truncated),
        )
    }
    taken: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    state = TrainState(
        step=taken,
        params=shapes.trained,
        opt_state=shapes.opt_state,
        settings=experiment.learner_settings(shapes.stage),
    )
    with_base = shapes.lora.rank > 0
    return step.lower(
        state,
        {} if with_base else shapes.frozen,
        Batch(**fields),
        stage=shapes.stage,
        base=shapes.frozen if with_base else None,
    )
