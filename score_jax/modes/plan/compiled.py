"""Compiles the rollout and the update of a config ahead of time, for chips that are not here.

programs(shapes)             yields Programs, the update first, as it is the likelier to fail
compile_one(program)         -> Compiled

The update is one program. A rollout is several, as in a run: they lay out the weights, feed the
prompts and sample. `Walk` finds them by running the same code on shapes.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.model import transformer
from score_jax.modes.plan import hlo
from score_jax.modes.plan.estimate import ROLLOUT, UPDATE
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.rollout import episode, layout
from score_jax.runtime import sharding
from score_jax.structs import Batch, Instructions, Params, PromptBatch

_NO_ROOM = "RESOURCE_EXHAUSTED"


class NoRoomError(Exception):
    """A program does not fit a chip's memory; the message is the compiler's."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler reports about a program, for one chip; in bytes."""

    seconds: float
    weights: int  # laid out for decoding, beside those that stay
    temporaries: int
    others: int  # batches in and out, and the padding of arguments
    code: int
    cost: hlo.Cost


@dataclasses.dataclass(frozen=True)
class Piece:
    """One compiled program, and how often it runs."""

    lowered: Any
    given: int  # bytes of its arguments that are counted elsewhere
    times: int = 1
    beside: int = 0  # bytes that others left for later ones


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile; its pieces run one after the other."""

    name: str
    pieces: Sequence[Piece]
    weights: int = 0  # as of Compiled


class Walk:
    """In place of `compiles.call`: lowers what is called, each program once, and returns shapes."""

    def __init__(self) -> None:
        self._found: dict[Any, Piece] = {}

    def __call__(self, program: Any, weights: Any, *arguments: Any, **how: Any) -> Any:
        leaves, tree = jax.tree.flatten(((weights, *arguments), how))
        key = (program, tree, *map(_kind, leaves))
        if (piece := self._found.get(key)) is None:
            lowered = program.lower(weights, *arguments, **how)
            piece = Piece(lowered, device_bytes(weights), times=0)
        self._found[key] = dataclasses.replace(piece, times=piece.times + 1)
        return piece.lowered.out_info

    def taken(self, beside: int = 0) -> list[Piece]:
        """The pieces since the last time."""
        pieces = [dataclasses.replace(p, beside=beside) for p in self._found.values()]
        self._found.clear()
        return pieces


def _kind(leaf: Any) -> Any:
    """What a program is compiled for: of an array its shape, else the value."""
    if not isinstance(leaf, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct):
        return leaf
    return leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)


def programs(shapes: Shapes) -> Iterator[Program]:
    """Both programs of a step, lowered for the shapes' mesh."""
    rollout, rows = _rollout(shapes)
    # The reference is not its argument: the log-probs under it are another program's.
    read = (shapes.state.params, shapes.state.opt_state, shapes.experiment.base)
    yield Program(UPDATE, [Piece(_update(shapes, rows), device_bytes(read))])
    yield rollout


def compile_one(program: Program) -> Compiled:
    """The sums over a program's pieces, with the memory of the one that takes most.

    Raises: NoRoomError with the compiler's reason.
    """
    started = time.perf_counter()
    code, cost, memory = 0, hlo.Cost(), (0, 0)
    for piece in program.pieces:
        try:
            made = piece.lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if _NO_ROOM not in str(error):
                raise
            raise NoRoomError(str(error).split("\n")[0].removeprefix(f"{_NO_ROOM}: ")) from error
        found = made.memory_analysis()
        results = found.output_size_in_bytes - found.alias_size_in_bytes
        others = found.argument_size_in_bytes - piece.given + results + piece.beside
        memory = max(memory, (found.temp_size_in_bytes, others), key=sum)
        code += found.generated_code_size_in_bytes
        cost.add(hlo.cost(made.as_text()), piece.times)
    return Compiled(time.perf_counter() - started, program.weights, *memory, code, cost)


def _rollout(shapes: Shapes) -> tuple[Program, Any]:
    """And the shapes of the Episode that it returns."""
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
    how: dict[str, Any] = {"settings": settings, "mesh": mesh}
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, walk = experiment.weights(shapes.state.params), Walk()
    weights = _placed(layout.laid_out(params, **how, call=walk), mesh)
    there = {id(leaf) for leaf in jax.tree.leaves(params)}
    own = device_bytes([leaf for leaf in jax.tree.leaves(weights) if id(leaf) not in there])
    pieces = walk.taken()
    arguments = episode.call_arguments(weights, prompts, key, **how, call=walk)
    fed = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arguments[1]))
    pieces += walk.taken(beside=fed // mesh.size)
    rows, _ = walk(episode.compiled, *arguments, **how)
    return Program(ROLLOUT, [*pieces, *walk.taken()], own), rows


def _placed(weights: Params, mesh: Any) -> Params:
    """Shapes with the shardings that the weights have as decoding reads them."""
    shards = sharding.decoding_shardings(mesh, transformer.AXES, weights)

    def place(x: Any, shard: Any) -> Any:
        if getattr(x, "sharding", None):
            return x
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shard)

    return jax.tree.map(place, weights, shards)


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
