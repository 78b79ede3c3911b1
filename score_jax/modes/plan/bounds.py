"""The least time of a step whose attempts all reach their limit, from the device's peaks.

compute(where, shapes)          -> seconds and FLOPs of an update on one device
rollout(where, shapes, terms)   -> seconds of a rollout, and why
exchange(where, bytes)          -> seconds and bytes sent between slices
steps(where, shapes, update)    -> the same step on other numbers of chips
"""

import dataclasses
from collections.abc import Iterator, Sequence

from jax.sharding import AbstractMesh

from score_jax.modes.plan import advise, estimate
from score_jax.modes.plan.chips import Machine
from score_jax.modes.plan.compiled import Compiled
from score_jax.modes.plan.estimate import ROLLOUT, Term
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.problem import InputError

READ = ("decode weights", "cache")  # at every token step
CHIPS = (16, 32, 64, 128, 256, 512)


@dataclasses.dataclass(frozen=True)
class Step:
    """The least times of a step, in seconds."""

    where: Machine
    mesh: dict[str, int]
    compute: float  # of the update
    send: float  # within slices
    exchange: float  # between slices
    rollout: float
    fits: bool

    @property
    def seconds(self) -> float:
        """Of the step, without grading: while an update computes, it sends."""
        return max(self.compute, self.send, self.exchange) + self.rollout


def compute(where: Machine, shapes: Shapes) -> tuple[float, float]:
    """Seconds and FLOPs of an update on one device."""
    peak = where.chip.peak
    assert peak
    flops = estimate.flops(shapes) / where.chips
    full = shapes.experiment.settings.model.dtype == "float32" or not peak.has_bfloat16
    return flops / (peak.full_precision_flops if full else peak.flops), flops


def rollout(where: Machine, shapes: Shapes, terms: Sequence[Term]) -> tuple[float, str]:
    """Seconds of a rollout, and why."""
    settings, peak = shapes.experiment.settings.rollout, where.chip.peak
    assert peak
    read = sum(term.bytes for term in terms if term.when == ROLLOUT and term.name in READ)
    turn = read / peak.bytes_per_sec
    turns = settings.attempts * settings.max_attempt_tokens * estimate.queue(shapes)
    told = (
        f"{turns} token steps that each read {read / 1e9:.1f} GB of weights and cache in "
        f"{turn * 1e3:.1f} ms"
    )
    return turn * turns, told


def exchange(where: Machine, given: float) -> tuple[float, float]:
    """Seconds and bytes that a chip sends where it gives so many to sums over a ring of slices.

    0 seconds where the network's speed is not known.
    """
    sent = 2 * (where.slices - 1) / where.slices * given
    speed = where.chip.network_bytes_per_sec
    return (sent / speed if speed else 0.0), sent


def steps(where: Machine, shapes: Shapes, update: Compiled) -> Iterator[Step]:
    """The same step on each number of CHIPS over which its rows can be split.

    Up to the chips of a slice of the plan one slice has them; more are more such slices. `fsdp` is
    that of the plan where there are enough chips, `data` takes the rest, and `tensor` grows where
    there are more chips than problems. What a chip sends is that of the compiled update, and
    between slices the gradient of its weights, for each micro-batch; of these there are as many as
    leave the same rows in each.
    """
    settings, sizes = shapes.experiment.settings, shapes.experiment.mesh.shape
    whole, problems = shapes.state.settings.split, settings.rollout.problems_per_step
    for count in CHIPS:
        tensor = sizes["tensor"]
        while count // tensor > problems:
            tensor *= 2
        fsdp = min(sizes["fsdp"], count // tensor)
        mesh = {"data": count // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
        parts = max(1, whole.parts * whole.shards * tensor // count)
        changes = {f"mesh.{name}": size for name, size in mesh.items()}
        changes |= {"mesh.slices": 0, "memory.micro_batches": parts}
        slices = max(1, count * where.slices // where.chips)
        there = dataclasses.replace(where, chips=count, slices=slices)
        try:
            planned = shapes.on(
                AbstractMesh(tuple(mesh.values()), tuple(mesh)), advise.applied(settings, changes)
            )
        except InputError:
            continue
        terms = estimate.terms(planned)
        sent = update.cost.sent * parts / whole.parts * sizes["tensor"] / tensor
        yield Step(
            there,
            mesh,
            compute(there, planned)[0],
            sent / where.chip.ici_bytes_per_sec,
            exchange(there, parts * device_bytes(planned.state.params))[0],
            rollout(there, planned, terms)[0],
            max(estimate.needed(terms).values()) <= where.chip.usable_bytes,
        )
