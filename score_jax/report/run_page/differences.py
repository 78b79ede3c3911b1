"""Settings that differ from the defaults of config/settings.py, by their paths."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from score_jax import jsonfiles
from score_jax.config.settings import Settings, StageSettings


def of(settings: Mapping[str, Any]) -> list[list[Any]]:
    """[[path, value, default], …] of a config.json's settings; a value without a default has None.

    Empty values without a default are left out. A stage has the defaults of any stage.
    """
    return [found for found in _differing(settings, Settings, "") if found[1] not in ("", None, [])]


def _differing(values: Mapping[str, Any], kind: type, path: str) -> Iterator[list[Any]]:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in values.items():
        field, at = fields.get(name), f"{path}{name}"
        default = None if field is None else _default(field)
        group = type(default) if dataclasses.is_dataclass(default) else _GROUPS.get(at)
        if at == "stages":
            for stage, own in value.items():
                yield from _differing(own, StageSettings, f"stages.{stage}.")
        elif group is not None:
            yield from _differing(value, group, f"{at}.")
        elif value != (plain := jsonfiles.plain(default)):
            yield [at, value, plain]


# Groups that must be given, so that no default says their type.
_GROUPS: dict[str, type] = {
    field.name: field.type
    for field in dataclasses.fields(Settings)
    if isinstance(field.type, type) and dataclasses.is_dataclass(field.type)
}


def _default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None
