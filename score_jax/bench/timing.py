"""How the benchmarks time compiled programs and print results."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from score_jax.workdir.runlog import package_versions


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of one call, including the wait for its results; and the results."""
    started = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - started, result


def interleaved(calls: Mapping[str, Callable[[], Any]], reps: int) -> dict[str, list[float]]:
    """Seconds of `reps` calls of each, in turn (A B A B …), after one of each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        seconds_of(call)
    for _ in range(reps):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call)[0])
    return seconds


def rate(amount: float, seconds: Sequence[float]) -> dict[str, Any]:
    """Amount per second: `tokens_per_sec` (median) and `spread` [slowest, fastest]."""
    return {
        "tokens_per_sec": amount / statistics.median(seconds),
        "spread": [amount / max(seconds), amount / min(seconds)],
    }


def peak_memory_bytes(compiled) -> int | None:
    """Arguments, results and temporaries of a compiled program; None if XLA gives no analysis."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def cost(compiled) -> dict[str, float] | None:
    """XLA's count of `flops` and `bytes` of one run; None with loops: it counts their body once."""
    if " while(" in compiled.as_text():
        return None
    found = compiled.cost_analysis() or {}
    return {"flops": found.get("flops", 0.0), "bytes": found.get("bytes accessed", 0.0)}


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def where() -> dict[str, Any]:
    """Versions and device, for every result."""
    devices = jax.devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "cores": cores(),
        "versions": package_versions(),
    }


def report(result: Mapping[str, Any]) -> None:
    """Prints a readable table, then the whole result as one line of JSON."""
    width = max(map(len, result))
    for key, value in result.items():
        if key != "versions":
            print(f"{key:{width}}  {_readable(value)}")
    print(json.dumps(result))


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return " … ".join(map(_readable, value))
    if isinstance(value, Mapping):
        return "  ".join(f"{key} {_readable(part)}" for key, part in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
