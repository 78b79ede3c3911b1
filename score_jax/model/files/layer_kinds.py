"""What differs between the layers of a model, of config.json: windows, and which layers rotate."""

from collections.abc import Mapping
from typing import Any

from score_jax.model.families import Family
from score_jax.model.files.read_numbers import Numbers
from score_jax.model.files.rope_formats import FULL, SLIDING
from score_jax.problem import InputError


def every_so_many(family: Family, layers: int, interval: int = 0) -> tuple[bool, ...]:
    """ModelConfig.rotary_layers where every so many layers one does not rotate."""
    every = interval or family.defaults.get("no_rope_layer_interval", layers + 1)
    found = tuple((layer + 1) % every > 0 for layer in range(layers))
    return () if all(found) else found


def rotary_layers(
    given: Mapping[str, Any], family: Family, layers: int, number: Numbers
) -> tuple[bool, ...]:
    """Which layers rotate; empty if all do."""
    if "no_rope_layer_interval" not in family.defaults:
        return ()
    stated = given.get("no_rope_layers")
    if stated is None:
        found = every_so_many(family, layers, number("no_rope_layer_interval"))
    elif isinstance(stated, list) and len(stated) >= layers:
        found = tuple(bool(rotates) for rotates in stated[:layers])
    else:
        raise InputError(
            f"{number.where}: no_rope_layers must have a 0 or 1 for each of {layers} layers, not "
            f"{stated}. Fetch the file again."
        )
    return () if all(found) else found


def windows(
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    family: Family,
    layers: int,
    number: Numbers,
) -> tuple[int, ...]:
    """The window of every layer; empty if no layer has one.

    config: as it stands, where null means no window; `given` has the family's defaults instead.
    """
    kinds = given.get("layer_types")
    if family.all_slide:
        if config.get("sliding_window", family.defaults.get("sliding_window")) is None:
            return ()
        kinds = kinds or [SLIDING] * layers
        if FULL in kinds:
            raise InputError(
                f"{number.where}: layer_types name layers without a window, and every layer of "
                f"{family.architecture} has it. Choose another checkpoint."
            )
    elif family.window_period:
        period = number("sliding_window_pattern", family.window_period)
        kinds = kinds or [FULL if (i + 1) % period == 0 else SLIDING for i in range(layers)]
    elif "use_sliding_window" in family.defaults and given["use_sliding_window"]:
        if "no_rope_layer_interval" in family.defaults:  # layers that do not rotate slide
            turns = rotary_layers(given, family, layers, number) or (True,) * layers
            kinds = kinds or [FULL if rotates else SLIDING for rotates in turns]
        else:
            first = number("max_window_layers", 28)  # layers from this one on slide
            kinds = kinds or [SLIDING if i >= first else FULL for i in range(layers)]
    else:
        return ()
    known = isinstance(kinds, list) and all(kind in (SLIDING, FULL) for kind in kinds)
    if not known or len(kinds) != layers:
        raise InputError(
            f"{number.where}: layer_types must name {layers} layers {SLIDING} or {FULL}, not "
            f"{kinds}. Fetch the file again."
        )
    if SLIDING not in kinds:
        return ()
    window = number("sliding_window")
    return tuple(window if kind == SLIDING else 0 for kind in kinds)
