"""Rotary settings from and to config.json, and from GGUF metadata; model/rope.py computes them.

Settings are read as transformers 5 and llama.cpp read them. What neither computes with (a key that
only some server knows) is left out; another kind of scaling is refused.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import Family, ModelConfig, Scaling
from score_jax.model.files.read_numbers import Numbers
from score_jax.model.rope import ORIGINAL
from score_jax.problem import InputError

SLIDING, FULL = "sliding_attention", "full_attention"  # Hugging Face's kinds of layers
PARTIAL = "partial_rotary_factor"


def from_huggingface(
    given: Mapping[str, Any], family: Family, head_width: int, number: Numbers
) -> dict[str, Any]:
    """The rotary fields of ModelConfig of a config.json with the family's defaults."""
    # transformers 5 keeps everything rotary in rope_parameters, version 4 in separate keys
    rotary = given.get("rope_parameters") or given.get("rope_scaling") or {}
    number.group("rope_parameters", rotary)
    local: Mapping[str, Any] = {}
    if SLIDING in rotary or FULL in rotary:  # for each kind of layer
        local, rotary = rotary.get(SLIDING) or {}, rotary.get(FULL, {})
        for kind in (local, rotary):
            number.group("rope_parameters", kind)
    width = _rotary_width(rotary.get(PARTIAL, given.get(PARTIAL, 1.0)), family, head_width, number)
    theta = given.get("rope_theta", 10_000.0)
    fields = {
        "rope_theta": number.real("rope_theta", rotary.get("rope_theta", theta)),
        "rope_scaling": _scaling(rotary, given, family, (width or head_width) // 2, number),
        "rotary_width": width,
    }
    local_scaling = _scaling(local, given, family, (width or head_width) // 2, number)
    if "rope_local_base_freq" in family.defaults:
        key = "rope_local_base_freq"
        if local_scaling:
            raise InputError(
                f"{number.where}: rotary scaling of {SLIDING} layers is not supported. Choose "
                "another checkpoint of this model."
            )
        fields["local_rope_theta"] = number.real(key, local.get("rope_theta", given[key]))
    elif local and (local_scaling, local.get("rope_theta", theta)) != (
        fields["rope_scaling"],
        fields["rope_theta"],
    ):
        raise InputError(
            f"{number.where}: rope_parameters of {SLIDING} layers that differ from those of {FULL} "
            f"layers are not supported for {family.architecture}. Choose another checkpoint."
        )
    return fields


def to_huggingface(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The rotary keys of config.json, for transformers 4 and 5."""
    stretched: dict[str, Any] = dict(config.rope_scaling) if config.rope_scaling else {}
    described: dict[str, Any] = {"rope_theta": config.rope_theta}
    if ORIGINAL in family.defaults and ORIGINAL in stretched:
        described[ORIGINAL] = stretched[ORIGINAL]  # there it rules
    if stretched.get("rope_type") == "dynamic":
        del stretched[ORIGINAL]  # max_position_embeddings is it
    rotary = {"rope_type": "default", "rope_theta": config.rope_theta, **stretched}
    if family.partial_rotary:
        part = (config.rotary_width or config.head_width) / config.head_width
        rotary[PARTIAL] = described[PARTIAL] = part
    if config.local_rope_theta:
        rotary = {
            FULL: rotary,
            SLIDING: {"rope_type": "default", "rope_theta": config.local_rope_theta},
        }
        described["rope_local_base_freq"] = config.local_rope_theta
    return described | {"rope_scaling": stretched or None, "rope_parameters": rotary}


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
        raise _unknown(kind, where)
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


def _rotary_width(factor: Any, family: Family, head_width: int, number: Numbers) -> int:
    """ModelConfig.rotary_width of a partial_rotary_factor."""
    factor = number.real(PARTIAL, 1.0 if factor is None else factor)
    if factor == 1:
        return 0
    if not family.partial_rotary:
        raise InputError(
            f"{number.where}: {PARTIAL} = {factor} is not supported for {family.architecture}: "
            f"this program computes {PARTIAL} = 1.0, so answers would differ. Choose another "
            "checkpoint."
        )
    width = int(head_width * factor)
    if width % 2 or not 2 <= width < head_width:
        raise InputError(
            f"{number.where}: {PARTIAL} = {factor} rotates {width} of {head_width} values of a "
            "head: the number must be even, and at least 2. Fetch the file again."
        )
    return width


def _scaling(
    rotary: Mapping[str, Any], given: Mapping[str, Any], family: Family, half: int, number: Numbers
) -> Scaling | None:
    """ModelConfig.rope_scaling of one kind of layer's rotary settings."""
    where, positions = number.where, number("max_position_embeddings", 2048)
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind in ("default", "none", None):
        return None
    if ORIGINAL in family.defaults and kind in ("su", "yarn"):
        kind = "longrope"  # older names for it in Phi-3's files
    if not isinstance(kind, str) or kind not in rope.SCALINGS:
        raise _unknown(kind, where)
    found: dict[str, Any] = {ORIGINAL: positions, **rotary}
    if kind == "dynamic":
        found[ORIGINAL] = positions  # transformers reads no other
    elif ORIGINAL in given:
        found[ORIGINAL] = given[ORIGINAL]
    needed, more = rope.SCALINGS[kind]
    if kind == "yarn" and found.get("factor") is None and ORIGINAL in {**given, **rotary}:
        found["factor"] = positions / number.real(ORIGINAL, found[ORIGINAL])
    missing = [key for key in needed if not _is_setting(key, found.get(key), half)]
    missing += [
        key for key in more if found.get(key) is not None and not _is_setting(key, found[key], half)
    ]
    if missing:
        raise InputError(f"{where}: rotary scaling {kind!r} lacks {_described(missing, half)}.")
    if kind == "dynamic" and half < 2:
        raise InputError(f"{where}: rotary scaling 'dynamic' needs heads wider than 2.")
    return (
        ("rope_type", kind),
        *(
            (key, tuple(found[key]) if key in rope.TABLES else found[key])
            for key in (*needed, *more)
            if found.get(key) is not None
        ),
    )


def _is_setting(key: str, value: Any, half: int) -> bool:
    if key in rope.TABLES:
        right = isinstance(value, list | tuple) and len(value) == half
        return right and all(_is_setting("", x, half) for x in value)
    if key == "truncate":
        return isinstance(value, bool)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def _described(keys: list[str], half: int) -> str:
    return ", ".join(f"{key} ({half} numbers)" if key in rope.TABLES else key for key in keys)


def _unknown(kind: Any, where: str) -> InputError:
    return InputError(
        f"{where}: rotary scaling {kind!r} is not supported; known: default, "
        f"{', '.join(rope.SCALINGS)}. Choose another checkpoint of this model."
    )


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
