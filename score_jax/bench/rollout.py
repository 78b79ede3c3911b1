"""Rollouts: tokens per second, the work of their steps, and a lower bound of their cost.

If attempts differ in length, the rollout is compared with *lock-step*: the same program, but all
slots turn around at once, so that every attempt lasts as long as its longest row.
"""

import dataclasses
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout

from score_jax.bench import timing
from score_jax.bench.workloads import Workload
from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.model.cache_layouts import layout_for
from score_jax.rollout import episode, layout, programs
from score_jax.rollout.sampling import sample
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.slots import Work
from score_jax.runtime import peaks, topology
from score_jax.structs import Episode, Params


def measure(work: Workload, reps: int) -> dict[str, Any]:
    """Compiles and times the workload's rollout; the keys of the result are below."""
    settings = {"rollout": work.settings}
    skewed = bool(np.ptp(work.limit_QGA))
    if skewed:
        settings["lock_step"] = dataclasses.replace(
            work.settings, turn_rows=work.settings.slots, shrink=0
        )
    compiled, compile_sec = {}, {}

    def arguments() -> tuple:  # as episode.run, which lays the weights out each time
        return episode.call_arguments(
            layout.laid_out(work.params, settings=work.settings),
            work.prompts,
            jax.random.key(1),
            settings=work.settings,
            limit_QGA=work.limit_QGA,
        )

    for name, one in settings.items():
        compiled[name] = _Compiled(arguments(), one)
        compile_sec[name] = compiled[name].compile_sec

    def rollout(name: str):
        return compiled[name](arguments())

    calls = {name: functools.partial(rollout, name) for name in settings}
    seconds = timing.interleaved(calls, reps)
    rows, counted = calls["rollout"]()
    generated = int(np.sum(np.asarray(rows.attempt) > 0))
    result: dict[str, Any] = {
        "workload": work.name,
        **timing.rate(generated, seconds["rollout"]),
        "compile_sec": compile_sec["rollout"],
        "peak_memory_bytes": _peak_memory_bytes(work, compiled["rollout"]),
        "generated_tokens": generated,
        "fed_tokens": int(counted.fed_tokens[0]),
        **_steps(counted),
        **_bandwidth(work, counted, statistics.median(seconds["rollout"])),
        **decode_step(work),
    }
    if skewed:
        _, others = calls["lock_step"]()
        locked = timing.rate(generated, seconds["lock_step"])
        result["lock_step"] = {**locked, **_steps(others)}
        result["times_lock_step"] = result["tokens_per_sec"] / locked["tokens_per_sec"]
    return result | timing.where()


def compile_for(work: Workload, name: str) -> dict[str, Any]:
    """The cost of the decode step on a TPU that this machine does not have, by its real compiler.

    Args:
      name: a topology, such as "v5e:2x2"; the step is compiled for one of its chips.
    Raises: InputError if there is no TPU compiler, or no such topology.
    """
    one_chip = topology.one_chip(name)
    settings = dataclasses.replace(work.settings, cache_layout=layout_for("tpu"), untied=False)
    work = dataclasses.replace(work, settings=settings)
    return {
        "workload": work.name,
        "topology": name,
        "dtype": work.settings.dtype,
        **decode_step(work, one_chip),
        "versions": timing.where()["versions"],
    }


class _Compiled:
    """The programs of a rollout, compiled ahead of time."""

    def __init__(self, arguments: tuple, settings: EpisodeSettings):
        """arguments: those of `episode.rollout`."""
        self._settings, self.compile_sec = settings, 0.0
        self.programs: list[Any] = []
        how: dict[str, Any] = {"mesh": None, "platform": jax.default_backend()}
        if not programs.are_shared():
            self._compile(episode.compiled.lower(*arguments, settings=settings, **how))
            return
        params, *others = arguments

        def compile(program: programs.Program, *of_program, **of_it):
            how["settings"] = of_it["settings"]
            return self._compile(program.lower(params, *of_program, **how))

        self._sampled(compile, *others)

    def __call__(self, arguments: tuple) -> tuple[Episode, Work]:
        if not programs.are_shared():
            return self.programs[0](*arguments)
        (params, *others), left = arguments, iter(self.programs)
        held, *_ = self._sampled(
            lambda _, *of_program, settings: next(left)(params, *of_program), *others
        )
        return held.state.rows, held.state.work

    def _sampled(self, call, *arguments):
        how: dict[str, Any] = {"settings": self._settings, "shards": 1, "shared": True}
        return episode.sampled(call, *arguments, **how)

    def _compile(self, lowered) -> Any:
        """Returns: the shapes of what it returns."""
        seconds, made = timing.seconds_of(lowered.compile)
        self.compile_sec += seconds
        self.programs.append(made)
        return lowered.out_info


def _peak_memory_bytes(work: Workload, compiled: _Compiled) -> int | None:
    """Of the rollout, which reads laid-out weights, and of the weights that they are made from."""
    found = max(timing.peak_memory_bytes(program) or 0 for program in compiled.programs)
    return found and found + sum(x.nbytes for x in jax.tree.leaves(work.params))


def _steps(counted: Work) -> dict[str, Any]:
    return {
        "decode_steps": int(counted.decode_steps[0]),
        "live_share": float(counted.live_slot_steps[0] / counted.slot_steps[0]),
    }


def _bandwidth(work: Workload, counted: Work, seconds: float) -> dict[str, Any]:
    """The least bytes of all decode steps over the whole rollout's time, prompts included.

    `bandwidth_share` is None if the device's peak is not known.
    """
    s = work.settings
    params, slot_cache = _held(work, slots=1)
    weights, slot = _size(params), _size(slot_cache)
    if not s.model.tied:
        weights -= params["embedding"].size  # only a few of its rows are read
    steps, slot_steps = np.sum(counted.decode_steps), np.sum(counted.slot_steps)
    values = float(steps) * weights + float(slot_steps) * slot
    speed = values * jnp.dtype(s.dtype).itemsize / seconds
    peak = peaks.here()
    share = speed / (peak.bytes_per_sec * jax.device_count()) if peak else None
    return {"least_bytes_per_sec": speed, "bandwidth_share": share}


def _held(work: Workload, slots: int) -> tuple[Any, Any]:
    """Shapes of what a decode step reads: the weights, and the cache of `slots` slots."""
    s = work.settings
    columns = work.columns
    params = jax.eval_shape(lambda p: transformer.for_decoding(s.model, p, s.dtype), work.params)
    cache = jax.eval_shape(lambda: kv.empty(s.model, slots, columns, s.dtype, s.cache_layout))
    return params, cache


def _size(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def decode_step(work: Workload, sharding=None) -> dict[str, Any]:
    """The least FLOPs and bytes per token, and those of the decode step if XLA can count them.

    Least: every matrix once per token (FLOPs) or once per step (bytes), and the cache of the slots
    once per step; attention FLOPs over the whole cache, as the step computes it.
    """
    s = work.settings
    slots = episode.slot_counts(len(work.prompts.tokens) * s.samples, s)[0]
    columns = work.columns
    params, cache = _held(work, slots)
    # Without this option XLA counts a byte more than once if a TPU prefetches it on the chip.
    options = {"xla_vf_vmem_memory_space_assignment": False} if sharding else {}
    lowered = lower_step(s, work.params, slots, columns, sharding)
    found = timing.cost(lowered.compile(options))
    weights, held = _size(params), _size(cache)
    width = jnp.dtype(s.dtype).itemsize
    least_bytes = (weights + held) * width
    if not s.model.tied:
        weights -= params["embedding"].size  # looked up, not multiplied
    least_flops = 2 * weights * slots + 2 * held * s.model.heads // s.model.kv_heads
    least = {
        "least_bytes_per_token": least_bytes / slots,
        "least_flops_per_token": least_flops / slots,
    }
    if found is None:
        return least
    return least | {
        "bytes_per_token": found["bytes"] / slots,
        "bytes_over_least": found["bytes"] / least_bytes,
        "flops_per_token": found["flops"] / slots,
        "flops_over_least": found["flops"] / least_flops,
    }


def lower_step(s: EpisodeSettings, params: Params, slots: int, columns: int, sharding=None):
    """One decode step alone (logits, draw, layers), lowered for `slots` rows of `columns` tokens.

    params: those of the workload, or their shapes.
    sharding: of all arguments, to compile for devices that are not here.
    """

    def step(params, cache, hidden_BD, uniform_B, length_B, live_B, slot):
        logits_BV = transformer.project(s.model, params, hidden_BD)
        token_B, logp_B = sample(logits_BV, uniform_B, s.policy)
        hidden_BD, cache = transformer.step(s.model, params, cache, token_B, length_B, slot, live_B)
        return token_B, logp_B, hidden_BD, cache

    def shapes(params):
        return (
            transformer.for_decoding(s.model, params, s.dtype, untied=s.untied),
            kv.empty(s.model, slots, columns, s.dtype, s.cache_layout),
            jnp.zeros((slots, s.model.width), s.dtype),
            jnp.zeros(slots),
            jnp.zeros(slots, jnp.int32),
            jnp.zeros(slots, bool),
            jnp.int32(0),
        )

    arguments = jax.eval_shape(shapes, params)
    if sharding is None:
        return jax.jit(step, donate_argnums=1).lower(*arguments)
    # The compiler chooses the memory layout of arrays, as it does inside the rollout's loop.
    chosen = Format(Layout.AUTO, sharding)
    shardings = jax.tree.map(lambda _: chosen, arguments)
    jitted = jax.jit(step, donate_argnums=1, in_shardings=shardings, out_shardings=chosen)
    return jitted.lower(*arguments)
