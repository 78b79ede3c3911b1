"""Rotary frequencies of a model, with the kinds of scaling that published checkpoints use.

    linear     divides every frequency by a factor
    llama3     only the slow ones, whose wavelength exceeds the first context, with a ramp between
    yarn       the same by another ramp; also lengthens queries and keys
    longrope   divides each by a number of its own, from one of two tables; lengthens, too
    dynamic    raises the base once rows are longer than the context

The last two depend on how long a row is. Rows must not change their positions while they grow, so a
run has one set of frequencies: that of the longest row it can hold (`for_rows`). Servers choose it
by the length that a row has just now, so that the two differ for shorter rows (dynamic, longrope
with rows on both sides of the first context).

Sources: YaRN, arXiv 2309.00071; LongRoPE, arXiv 2402.13753; all must agree with transformers'
modeling_rope_utils.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_jax.model.families import ModelConfig

ORIGINAL = "original_max_position_embeddings"  # the context before it was extended
# By Hugging Face's names: the keys that each kind of scaling needs, and those that it may have.
SCALINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "linear": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", ORIGINAL), ()),
    "yarn": (
        ("factor", ORIGINAL),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": (("short_factor", "long_factor", ORIGINAL), ("factor", "attention_factor")),
    "dynamic": (("factor", ORIGINAL), ()),
}
TABLES = ("short_factor", "long_factor")  # numbers for each pair of a head, not one number
BY_LENGTH = ("longrope", "dynamic")


def for_rows(config: ModelConfig, longest: int) -> ModelConfig:
    """The model of a run whose rows have at most `longest` tokens; the same if that matters not."""
    by_length = config.rope_scaling and dict(config.rope_scaling)["rope_type"] in BY_LENGTH
    return dataclasses.replace(config, longest_row=longest) if by_length else config


def context(config: ModelConfig) -> int:
    """How many tokens a row may have."""
    scaling: Mapping[str, Any] = dict(config.rope_scaling or ())
    # These two stretch a context that config.json still states unstretched.
    if scaling.get("rope_type") in ("yarn", "dynamic"):
        return max(config.max_positions, int(scaling["factor"] * scaling[ORIGINAL]))
    return config.max_positions


def frequencies(config: ModelConfig, *, local: bool = False, columns: int = 0) -> np.ndarray:
    """Radians per position of each pair (i, i + W/2) of the W rotated values: [W/2] float32.

    local: those of layers with a window, which may have a base of their own (Gemma 3).
    columns: of whole rows, where the config does not say how long the longest is; 0: of a cache.
    Raises: ValueError if they depend on the longest row, and that is not known or too short.

    Source: RoFormer, arXiv 2104.09864.
    """
    half = (config.rotary_width or config.head_width) // 2
    # In float64, rounded once: the position multiplies the frequency's rounding error.
    own = local and bool(config.local_rope_theta)
    theta = config.local_rope_theta if own else config.rope_theta
    frequency = theta ** (-np.arange(half, dtype=np.float64) / half)
    if config.rope_scaling and not own:
        scaling = dict(config.rope_scaling)
        length = config.longest_row or columns
        if scaling["rope_type"] in BY_LENGTH and not max(columns, 1) <= length:
            raise ValueError(
                f"rotary scaling {scaling['rope_type']!r} depends on a run's longest row, which is "
                f"{length} here, and there are {columns} columns. Set it with rope.for_rows."
            )
        frequency = frequency / divisors(frequency, scaling, theta, length)
    return frequency.astype(np.float32)


def divisors(
    frequency: np.ndarray, scaling: Mapping[str, Any], theta: float = 0.0, length: int = 0
) -> np.ndarray:
    """The number that each frequency is divided by.

    Args:
      theta: the base of the frequencies; yarn needs it.
      length: of the longest row; longrope and dynamic need it.
    """
    kind = scaling["rope_type"]
    if kind == "longrope":
        return np.asarray(scaling["long_factor" if length > scaling[ORIGINAL] else "short_factor"])
    factor = float(scaling["factor"])
    if kind == "linear":
        return np.full_like(frequency, factor)
    original = float(scaling[ORIGINAL])
    if kind == "dynamic":
        half = len(frequency)
        stretch = factor * max(length, original) / original - (factor - 1)
        return stretch ** (np.arange(half) / (half - 1))
    if kind == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        turns = original * frequency / (2 * np.pi)
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 1: fast, kept; 0: slow, divided
    else:
        assert kind == "yarn", scaling
        kept = 1.0 - _yarn_ramp(len(frequency), scaling, theta)
    return 1.0 / ((1.0 - kept) / factor + kept)


def _yarn_ramp(half: int, scaling: Mapping[str, Any], theta: float) -> np.ndarray:
    """0 where a pair turns fast in the first context, 1 where it turns slowly."""

    def pair(turns: float) -> float:
        """The index, not whole, of the pair that makes so many turns in the first context."""
        return half * math.log(scaling[ORIGINAL] / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    if first == last:
        last += 0.001
    return np.clip((np.arange(half) - first) / (last - first), 0.0, 1.0)


def amplitude(config: ModelConfig, *, local: bool = False) -> float:
    """What rotated queries and keys are multiplied by."""
    if not config.rope_scaling or (local and config.local_rope_theta):
        return 1.0
    scaling: Mapping[str, Any] = dict(config.rope_scaling)
    kind = scaling["rope_type"]
    if kind not in ("yarn", "longrope"):
        return 1.0
    if "attention_factor" in scaling:
        return float(scaling["attention_factor"])
    if kind == "longrope":
        factor = scaling.get("factor", config.max_positions / scaling[ORIGINAL])
        return math.sqrt(1 + math.log(max(factor, 1.0)) / math.log(scaling[ORIGINAL]))
    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and all_dim:
        return yarn_amplitude(scaling["factor"], mscale) / yarn_amplitude(
            scaling["factor"], all_dim
        )
    return yarn_amplitude(scaling["factor"])


def is_finite(config: ModelConfig) -> bool:
    """Whether the settings give numbers, for rows of one token and for those of the context."""
    found: list[float] = []
    try:
        with np.errstate(all="ignore"):
            for length in (1, context(config)):
                of_rows = dataclasses.replace(config, longest_row=length)
                for local in (False, True):
                    found += [*frequencies(of_rows, local=local), amplitude(of_rows, local=local)]
    except (ArithmeticError, ValueError):
        return False
    return bool(np.isfinite(found).all())


def yarn_amplitude(factor: float, mscale: float = 1.0) -> float:
    """What YaRN multiplies queries and keys by, of itself."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
