"""Settings that make a config fit a device, and how far those of one that fits may grow.

    fitting(shapes, usable)    -> the mildest changes found that make it fit; None: there are none
    on_more(make, usable)      -> the fewest devices that hold it, with their changes
    least(shapes)              -> bytes of each device with every change
    room(shapes, usable)       -> each setting alone, as far as it fits

Changes are written as they are typed: --config.KEY=VALUE. Each is tried by the estimate, which
takes milliseconds, so a plan tries all of them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from score_jax.config.settings import Settings
from score_jax.modes.plan import estimate
from score_jax.modes.plan.shapes import Shapes
from score_jax.problem import InputError
from score_jax.runtime import sharding

RANKS = (256, 128, 64, 32, 16, 8)
SHORTEST_ATTEMPT = 64  # tokens; shorter ones are not advised
MOST_DEVICES = 64
_STEP = 64  # of lengths

Changes = dict[str, Any]  # setting -> value


def fitting(shapes: Shapes, usable: float) -> Changes | None:
    """Changes that make a config fit, those that change no result before those that do."""
    if _fits(shapes, {}, usable):
        return {}
    changes: Changes = {}
    for key, values in _ladder(shapes):
        if key == "model.lora.rank":  # adapters have small moments: Adam may stay
            changes.pop("optimizer.name", None)
        for value in values:
            if _fits(shapes, changes | {key: value}, usable):
                return _milder(shapes, changes | {key: value}, usable)
        if _made(shapes, changes | {key: values[-1]}):
            changes[key] = values[-1]
    return None


def _ladder(shapes: Shapes) -> Iterator[tuple[str, Sequence[Any]]]:
    """Settings in the order they are tried, each with values that need ever less memory."""
    e, s = shapes.experiment, shapes.experiment.settings
    samples = estimate.samples(e)
    slots = min(s.rollout.slots or samples, samples)
    rows = max(1, s.rollout.rows // sharding.batch_size(e.mesh))
    parts = [n for n in _divisors(rows) if n > shapes.state.settings.split.parts]
    found: list[tuple[str, Iterable[Any]]] = [
        ("memory.micro_batches", parts),
        ("memory.remat", ["full"] if s.memory.remat != "full" else []),
        ("rollout.slots", _halves(slots, 1)),
        ("evaluation.batch", _halves(s.evaluation.batch, 1)),
        ("model.dtype", ["bfloat16"] if s.model.dtype == "float32" else []),
        ("optimizer.name", ["adafactor"] if s.optimizer.name == "adam" else []),
        ("model.lora.rank", [n for n in RANKS if not 0 < s.model.lora.rank <= n]),
        ("rollout.max_attempt_tokens", _halves(s.rollout.max_attempt_tokens, SHORTEST_ATTEMPT)),
    ]
    for key, values in found:
        if listed := list(values):
            yield key, listed


def _milder(shapes: Shapes, changes: Changes, usable: float) -> Changes:
    """The changes without those that it fits without, and each no stronger than it must be."""
    for key, values in list(_ladder(shapes)):
        if key not in changes:
            continue
        without = {name: value for name, value in changes.items() if name != key}
        if _fits(shapes, without, usable):
            changes = without
            continue
        milder = values[: values.index(changes[key])]
        found = (value for value in milder if _fits(shapes, changes | {key: value}, usable))
        changes[key] = next(found, changes[key])
    return changes


def on_more(
    make: Callable[[int, int], Shapes], devices: int, decoding: float, usable: float
) -> tuple[int, Changes] | None:
    """The fewest devices, from `devices` on, that hold a config, and the changes that it needs.

    Args:
      make: (fsdp, tensor) -> the shapes on their product of devices; may raise InputError.
      decoding: bytes of a whole model in the dtype of decoding, which only `tensor` splits.
    """
    count = devices
    while count <= MOST_DEVICES:
        for tensor in _divisors(count):
            if decoding / tensor > usable:
                continue
            try:
                shapes = make(count // tensor, tensor)
            except InputError:  # rows or heads cannot be split so
                continue
            found = fitting(shapes, usable) if least(shapes) <= usable else None
            if found is not None:
                mesh = {"mesh.data": 1, "mesh.fsdp": count // tensor, "mesh.tensor": tensor}
                return count, mesh | found
        count *= 2
    return None


def least(shapes: Shapes) -> float:
    """Bytes that a device needs with every change at its strongest."""
    made = _made(shapes, {key: values[-1] for key, values in _ladder(shapes)})
    return max(estimate.needed(estimate.terms(made or shapes)).values())


def room(shapes: Shapes, usable: float) -> list[str]:
    """What each setting may be, the others as they are."""
    e, s = shapes.experiment, shapes.experiment.settings
    samples = estimate.samples(e)
    rows = max(1, s.rollout.rows // sharding.batch_size(e.mesh))
    lengths = [_STEP * n for n in range(1, e.model.max_positions // _STEP + 1)]
    ranks = [*reversed(RANKS), 512] if s.model.lora.rank else []
    candidates: list[tuple[str, str, Sequence[int]]] = [
        ("rollout.slots", "up to", range(1, samples + 1)),
        ("memory.micro_batches", "from", list(reversed(_divisors(rows)))),
        ("rollout.max_prompt_tokens", "up to", lengths),
        ("rollout.max_attempt_tokens", "up to", lengths),
        ("model.lora.rank", "up to", ranks),
    ]
    lines = []
    for key, how, values in candidates:
        last = _last_that_fits(shapes, key, values, usable)
        if last is not None:
            now = _value(s, key) or (samples if key == "rollout.slots" else "chosen automatically")
            lines.append(f"{key} {how} {last} (now {now})")
    if s.model.lora.rank and _fits(shapes, {"model.lora.rank": 0}, usable):
        lines.append("all weights may be trained: model.lora.rank=0")
    return lines


def _last_that_fits(shapes: Shapes, key: str, values: Sequence[int], usable: float) -> int | None:
    """The last of values that need ever more memory; by bisection."""
    low, high = -1, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(shapes, {key: values[middle]}, usable):
            low = middle
        else:
            high = middle
    return values[low] if low >= 0 else None


def typed(changes: Mapping[str, Any]) -> str:
    """Changes as arguments of the command line."""
    return " ".join(f"--config.{key}={value}" for key, value in changes.items())


def applied(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with these values; keys are paths such as "memory.micro_batches"."""

    def replaced(group: Any, path: Sequence[str], value: Any) -> Any:
        name, *rest = path
        new = replaced(getattr(group, name), rest, value) if rest else value
        return dataclasses.replace(group, **{name: new})

    for key, value in changes.items():
        settings = replaced(settings, key.split("."), value)
    return settings


def _made(shapes: Shapes, changes: Changes) -> Shapes | None:
    """The shapes with these changes; None where they cannot be."""
    try:
        return shapes.changed(applied(shapes.experiment.settings, changes))
    except InputError:
        return None


def _fits(shapes: Shapes, changes: Changes, usable: float) -> bool:
    made = _made(shapes, changes)
    return made is not None and max(estimate.needed(estimate.terms(made)).values()) <= usable


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _halves(number: int, least: int) -> list[int]:
    """Ever smaller halves of a number, down to `least`."""
    found = []
    while number // 2 >= least:
        number //= 2
        found.append(number)
    return found
