"""The rotary scaling of a GGUF file, as llama.cpp reads it; model/rope.py computes it.

Metadata names linear scaling and yarn; tensors hold longrope's tables and those of Llama 3.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import ModelConfig, Scaling
from score_jax.model.files.read_numbers import Numbers
from score_jax.model.rope import ORIGINAL
from score_jax.problem import InputError

# Tensors with a number for each rotary pair.
TABLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def from_gguf(
    stated: Mapping[str, Any],
    real: Callable[..., float],
    number: Numbers,
    tables: Mapping[str, np.ndarray],
    config: ModelConfig,
) -> Scaling | None:
    """The scaling that GGUF metadata and tensors describe, as llama.cpp computes it.

    Args:
      stated: metadata without the architecture's name; a bare factor means linear scaling.
      real: reads a number of it, with a default.
      tables: rope_freqs and rope_factors_long and _short, where the file has them.
      config: the model without scaling.
    """
    where, half = number.where, (config.rotary_width or config.head_width) // 2
    kind = stated.get("rope.scaling.type", "linear")
    old = "rope.scaling.factor" not in stated
    factor = real("rope.scale_linear" if old else "rope.scaling.factor", "", 1.0) or 1.0
    lengthened = real("rope.scaling.attn_factor", "", 1.0)
    original = number("rope.scaling.original_context_length", config.max_positions)
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise InputError(
            f"{where}: rotary scaling {kind!r} (rope.scaling.type) is not one of GGUF files: none, "
            "linear, yarn, longrope. Load the checkpoint from its Hugging Face folder instead."
        )
    if kind == "none":
        factor = 1.0
    if kind == "yarn":
        _check_yarn(stated, real, factor, number)
    short, long = (tables.get(f"rope_factors_{name}.weight") for name in ("short", "long"))
    if (short is None) != (long is None) or (kind == "longrope" and short is None):
        raise InputError(
            f"{where}: longrope needs the tensors rope_factors_short.weight and "
            "rope_factors_long.weight, and the file lacks one. Fetch the file again."
        )
    if (freqs := tables.get("rope_freqs.weight")) is not None:
        if factor != 1 or lengthened != 1 or short is not None:
            raise InputError(
                f"{where}: rope_freqs.weight together with another rotary scaling is not "
                "supported. Load the checkpoint from its Hugging Face folder instead."
            )
        return _llama3(freqs, config.rope_theta, where)
    if kind == "yarn" and factor != 1:
        scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor, ORIGINAL: original}
        for theirs, ours in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
            if (key := f"rope.scaling.{theirs}") in stated:
                scaling[ours] = real(key, "")
        all_dim = real("rope.scaling.yarn_log_multiplier", "")
        if all_dim or lengthened != 1:
            scaling["attention_factor"] = (
                lengthened
                * rope.yarn_amplitude(factor)
                / (rope.yarn_amplitude(factor, all_dim) if all_dim else 1.0)
            )
        return tuple(scaling.items())
    if short is None or long is None:
        if lengthened == 1:
            return (("rope_type", "linear"), ("factor", factor)) if factor != 1 else None
        short = long = np.ones(half)  # longrope alone lengthens queries and keys
    for name, table in (("short", short), ("long", long)):
        if table.shape != (half,):
            raise InputError(
                f"{where}: rope_factors_{name}.weight has {table.size} numbers for {half} rotary "
                "pairs. Fetch the file again."
            )
    tabled: Scaling = (
        ("rope_type", "longrope"),
        ("short_factor", _decimals(factor * short)),
        ("long_factor", _decimals(factor * long)),
        (ORIGINAL, original),
    )
    ratio = max(config.max_positions / original, 1.0)
    usual = math.sqrt(1 + math.log(ratio) / math.log(original)) if original > 1 else 1.0
    return tabled if abs(usual - lengthened) < 1e-6 else (*tabled, ("attention_factor", lengthened))


def _check_yarn(
    stated: Mapping[str, Any], real: Callable[..., float], factor: float, number: Numbers
) -> None:
    """Raises: InputError for two keys that llama.cpp's versions read in different ways."""
    usual = (1.0, rope.yarn_amplitude(factor))
    for name, known in (("yarn_ext_factor", (1.0,)), ("yarn_attn_factor", usual)):
        key = f"rope.scaling.{name}"
        value = real(key, "", 1.0)
        if not any(math.isclose(value, x, rel_tol=1e-4) for x in known):
            raise InputError(
                f"{number.where}: {number.prefix}{key} = {stated[key]!r} is not supported: this "
                f"program computes {known[-1]:g}. Load the checkpoint from its Hugging Face folder "
                "instead."
            )


def _decimals(table: np.ndarray) -> tuple[float, ...]:
    """The shortest decimals of float32 numbers."""
    return tuple(float(str(np.float32(x))) for x in table)


def _llama3(divisors: np.ndarray, theta: float, where: str) -> Scaling:
    """The settings that give a table of divisors; Meta's releases differ in the factor only."""
    scaling: dict[str, float | str] = {
        "rope_type": "llama3",
        "factor": float(divisors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        ORIGINAL: 8192,
    }
    frequency = theta ** (-np.arange(len(divisors)) / len(divisors))
    if not np.allclose(rope.divisors(frequency, scaling), divisors, rtol=1e-3):
        raise InputError(
            f"{where}: the rotary frequencies in rope_freqs.weight are not those of Llama 3, the "
            "only ones known. Load the checkpoint from its Hugging Face folder instead."
        )
    return tuple(scaling.items())
