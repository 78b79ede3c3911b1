"""From a config file's tree to `Settings`, and back.

A config file builds `Settings(...)` and returns `to_config_dict(settings)`, so that every setting
can be overridden on the command line by its path. `resolve` turns the result back into dataclasses
and checks everything once; after it, functions get the settings they need, never the whole.
"""

import ast
import contextlib
import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict

from score_jax.config.checks import check
from score_jax.config.settings import CHOICES, MAXIMA, MINIMA, Settings
from score_jax.problem import LARGEST, InputError, nearest

_TEXTS = str | tuple[str, ...]  # the type of a setting that is a text or several


def to_config_dict(settings: Settings) -> ConfigDict:
    """Settings as an ml_collections tree, every field present, so that flags can override it."""
    return ConfigDict(dataclasses.asdict(settings))


def resolve(config: ConfigDict | Mapping[str, Any]) -> Settings:
    """Checked settings from a config file's tree.

    Raises: InputError for an unknown, missing or ill-typed setting, and for contradictions.
    """
    tree = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    settings = build(Settings, tree, "config")
    check(settings)
    return settings


def build(cls: type, tree: Mapping[str, Any], path: str) -> Any:
    """A dataclass from a tree with its field names; every value checked against its type."""
    if not isinstance(tree, Mapping):
        raise InputError(f"{path} must be a group of settings, not {tree!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in tree:
        if name not in fields:
            raise InputError(f"unknown setting {path}.{name}. {nearest(name, fields)}")
    values = {}
    hints = typing.get_type_hints(cls)
    for name, field in fields.items():
        if name in tree:
            values[name] = _value(hints[name], tree[name], f"{path}.{name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{path}.{name} is missing: every config must set it.")
    built = cls(**values)
    for name, value in values.items():
        choices = CHOICES.get((cls, name))
        if choices and value not in choices:
            raise InputError(f"{path}.{name}={value!r} is unknown. {nearest(value, choices)}")
        least = MINIMA.get((cls, name))
        if least is not None and not value >= least:
            raise InputError(f"{path}.{name}={value} must be at least {least:g}.")
        most = MAXIMA.get((cls, name))
        if most is not None and value > most:
            raise InputError(f"{path}.{name}={value} must be at most {most:.10g}.")
    return built


def _value(hint: Any, value: Any, path: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, int) and abs(value) > LARGEST:  # too long to be shown, too
        raise InputError(f"{path} must be a finite number, at most {LARGEST:g}.")
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, path)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise InputError(f"{path}={value!r} must be a tuple of names.")
        return tuple(_value(typing.get_args(hint)[0], v, path) for v in value)
    if hint == _TEXTS:
        return _texts(value, path)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise InputError(f"{path} must be a group of settings, not {value!r}.")
        inner = typing.get_args(hint)[1]
        return {k: _value(inner, v, f"{path}.{k}") for k, v in dict(value).items()}
    if origin is Literal:
        hint = str  # `build` checks which names it may have
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:
            raise InputError(f"{path}={value} must be a finite number, at most {LARGEST:g}.")
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kind = getattr(hint, "__name__", hint)  # "str | int" has no name
        raise InputError(f"{path}={value!r} must be of type {kind}, not {type(value).__name__}.")
    return value


def _texts(value: Any, path: str) -> str | tuple[str, ...]:
    """A text, or several; on a command line several are written as "('…', '…')"."""
    if isinstance(value, str) and value.lstrip()[:1] in ("(", "["):
        with contextlib.suppress(ValueError, SyntaxError):
            several = ast.literal_eval(value.strip())
            value = several if isinstance(several, tuple | list) else value
    if isinstance(value, str):
        return value
    if not isinstance(value, tuple | list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{path}={value!r} must be a text, or a tuple of texts.")
    return tuple(value)
