"""Rotary settings from and to config.json; gguf_rope.py reads those of GGUF, rope.py computes them.

Settings are read as transformers 5 reads them. What it does not compute with (a key that only some
server knows) is left out; another kind of scaling is refused.
"""

import sys
from collections.abc import Mapping
from typing import Any

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
        "rope_theta": number.real("rope_theta", rotary.get("rope_theta", theta), zero=False),
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
        fields["local_rope_theta"] = number.real(
            key, local.get("rope_theta", given[key]), zero=False
        )
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
    width = int(head_width * min(factor, 1.0))
    if width % 2 or not 2 <= width < head_width:
        raise InputError(
            f"{number.where}: {PARTIAL} = {factor} rotates {head_width * factor:g} of {head_width} "
            "values of a head: the number must be even, at least 2 and below the whole. Fetch the "
            "file again."
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
        raise unknown(kind, where)
    found: dict[str, Any] = {ORIGINAL: positions, **rotary}
    if kind == "dynamic":
        found[ORIGINAL] = positions  # transformers reads no other
    elif ORIGINAL in given:
        found[ORIGINAL] = given[ORIGINAL]
    needed, more = rope.SCALINGS[kind]
    if kind == "yarn" and found.get("factor") is None and ORIGINAL in {**given, **rotary}:
        found["factor"] = positions / number.real(ORIGINAL, found[ORIGINAL], zero=False)
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
    return is_number and 0 < value <= sys.float_info.max


def _described(keys: list[str], half: int) -> str:
    return ", ".join(f"{key} ({half} numbers)" if key in rope.TABLES else key for key in keys)


def unknown(kind: Any, where: str) -> InputError:
    return InputError(
        f"{where}: rotary scaling {kind!r} is not supported; known: default, "
        f"{', '.join(rope.SCALINGS)}. Choose another checkpoint of this model."
    )
