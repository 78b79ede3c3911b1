"""Writes settings.md, the reference of all settings, from score_jax/config/settings.py.

    python docs/make_settings.py            writes the page; a test compares it with the code

A setting is described by the comment on its line, or else by the comment above it. If it has both,
the comment above is a row of its own in the table. Comments are read from the source.
"""

import ast
import dataclasses
import inspect
import io
import re
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from score_jax.config import settings

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

All settings of a config. Override a setting on the command line by its path, for example
`--config.stages.stage2.bonus=5`. Write tuples as in Python, in quotes:
`--config.rollout.prompt_buckets="(64,)"`. A config file builds `Settings(…)` from
`score_jax/config/settings.py` and must give the settings without a default.

`python docs/make_settings.py` writes this page from that file.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *_group(settings.Settings, "config")])


def comments(cls: type) -> dict[str, tuple[str, str]]:
    """Field -> (the comment above it, the comment on its line); empty if there is none."""
    source = inspect.getsource(cls)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    alone = {line for line, t in found.items() if not t.line[: t.start[1]].strip()}
    described = {}
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        above, beside = range(first, node.lineno), range(node.lineno, (node.end_lineno or 0) + 1)
        over, after = (
            " ".join(found[n].string.lstrip("# ").rstrip() for n in lines if n in found)
            for lines in (above, beside)
        )
        described[node.target.id] = (over, after)
    return described


def _group(cls: type, path: str) -> Iterator[str]:
    """The section of a group of settings, then the sections of its groups."""
    described, hints = comments(cls), typing.get_type_hints(cls)
    yield f"## {path}\n"
    yield f"{_first_paragraph(cls)}\n"
    yield "| setting | type | default | values | meaning |"
    yield "|---|---|---|---|---|"
    inner = []
    for field in dataclasses.fields(cls):
        above, beside = described[field.name]
        if above and beside:
            yield f"| *{_cell(above)}* | | | | |"
        hint = hints[field.name]
        columns = [_type(hint), _default(field), _values(cls, field.name)]
        text = beside or above
        group = _inner(hint)
        if group is not None:
            same = _SAME.get((cls, field.name))
            there = f"{path}.{same or field.name}" + ("" if group is hint or same else ".NAME")
            text = f"{text + '; ' if text else ''}see [{there}](#{_anchor(there)})"
            columns = ["group", "", ""]
            if not same:
                inner.append((group, there))
        yield f"| `{field.name}` | {' | '.join(columns)} | {_cell(text)} |"
    yield ""
    for group, there in inner:
        yield from _group(group, there)


# Groups that are described with another group of the same class.
_SAME: dict[tuple[type, str], str] = {
    (settings.ProblemSettings, "mixture"): "test",
    (settings.ProblemSettings, "tests"): "test",
}


def _inner(hint: Any) -> type | None:
    """The class of a group, or of the groups in a mapping."""
    if typing.get_origin(hint) is typing.get_origin(Mapping[str, int]):
        hint = typing.get_args(hint)[1]
    return hint if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _first_paragraph(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "str"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    if isinstance(hint, types.UnionType):
        return " or ".join(map(_type, typing.get_args(hint)))
    of = [a.__name__ for a in typing.get_args(hint) if isinstance(a, type)]
    return f"{typing.get_origin(hint).__name__.lower()} of {of[-1]}"


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "**required**" if field.default_factory is dataclasses.MISSING else "`{}`"


def _values(cls: type, name: str) -> str:
    choices, least = settings.CHOICES.get((cls, name)), settings.MINIMA.get((cls, name))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    return f"≥ {least:g}" if least is not None else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
