"""Published files of a benchmark: that a file holds what was published, no more and no less.

A result is only comparable on the very problems others used. So a file is refused unless its number
of rows and a digest of their content are the published ones. The digest is taken over those fields
that a problem is made of, whatever the order of rows, the other fields or the spelling of the JSON:
copies in another order, or with levels written as numbers, are the same data set.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from score_jax.data.sets import jsonl
from score_jax.problem import InputError


@dataclasses.dataclass(frozen=True)
class Published:
    """One published file."""

    name: str  # in its folder
    url: str  # where its authors published it
    rows: tuple[int, ...]  # how many it may have
    digest: str  # of its content, see `digest`


def is_url(path: str) -> bool:
    """Whether a path is the address of a folder on the web."""
    return path.startswith(("http://", "https://"))


def find(path: str, file: Published) -> pathlib.Path:
    """The file in the folder `path`; InputError when it is not there."""
    folder = pathlib.Path(path).expanduser()
    found = folder / file.name
    if not found.is_file() and (folder / file.name.removesuffix(".gz")).is_file():
        found = folder / file.name.removesuffix(".gz")
    if not found.is_file():
        state = "no such file" if folder.is_dir() else f"{folder} is not a folder"
        raise InputError(
            f"cannot read {found}: {state}. Set --config.problems.path to a folder that holds "
            f"{file.name} as published at {file.url}, or leave it empty to download it."
        )
    return found


def digest(contents: Iterable[Sequence[Any]]) -> str:
    """16 hexadecimal digits of what the rows hold, in whatever order they come."""
    lines = sorted(json.dumps(list(content), ensure_ascii=True) for content in contents)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def check_count(count: int, path: pathlib.Path, file: Published) -> None:
    """Raises: InputError if a file has another number of rows than the published one."""
    if count not in file.rows:
        wanted = " or ".join(f"{number:,}" for number in file.rows)
        raise InputError(
            f"{path}: has {count:,} rows and the published {file.name} has {wanted}, so results on "
            f"it would be those of another data set. {_advice(file)}"
        )


def check_digest(found: Iterable[str], path: pathlib.Path, file: Published) -> str:
    """The published digest. Raises: InputError if it is none of those found for a file."""
    found = list(found)
    if file.digest not in found:
        raise InputError(
            f"{path}: has the right number of rows and another content (digest {found[0]}, "
            f"published: {file.digest}): a problem, an answer or a test was changed, so results on "
            f"it would be those of another data set. {_advice(file)}"
        )
    return file.digest


def unique(names: Iterable[tuple[int, str]], path: pathlib.Path) -> None:
    """Raises: InputError if two (line number, id) pairs have one id."""
    line_of: dict[str, int] = {}
    for number, name in names:
        if name in line_of:
            raise InputError(
                f"{path}, line {number}: id {name!r} is already that of line {line_of[name]}; "
                f"transcripts and paired comparisons need one id per problem."
            )
        line_of[name] = number


def string(row: dict[str, Any], name: str, path: pathlib.Path, number: int) -> str:
    """The string `row[name]`, which may be empty; line ends as \\n."""
    value = row.get(name)
    if isinstance(value, str) and not value.strip():
        return ""
    return jsonl.text_field(row, name, path, number).replace("\r\n", "\n")


def strings(row: dict[str, Any], name: str, path: pathlib.Path, number: int) -> list[str]:
    """The list of strings `row[name]`, which may be empty; blanks around each go."""
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(
            f"{path}, line {number}: field {name!r} must be a list of strings, got "
            f"{str(value)[:60]!r}."
        )
    return [item.replace("\r\n", "\n").strip() for item in value]


def _advice(file: Published) -> str:
    return (
        f"Take the file from {file.url}; to use a version of your own, set "
        f"config.problems.name=jsonl, which checks no content."
    )
