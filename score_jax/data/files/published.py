"""Published files of a benchmark: checks that a file holds exactly what was published.

Results can only be compared on the same problems. So a file is refused unless its number of rows
and a digest of their content are the published ones. The digest covers the fields that a problem is
made of. It does not depend on the order of rows, on other fields or on how the JSON is written, so
a copy in another order, or with levels written as numbers, is the same data set.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from score_jax.data.sets import jsonl
from score_jax.problem import InputError, expanded


@dataclasses.dataclass(frozen=True)
class Published:
    """One published file."""

    name: str  # in its folder
    url: str  # where its authors published it
    rows: tuple[int, ...]  # the numbers of rows that it may have
    digest: str  # of its content, see `digest`


def is_url(path: str) -> bool:
    """Whether a path is the address of a folder on the web."""
    return path.startswith(("http://", "https://"))


def find(path: str, file: Published) -> pathlib.Path:
    """The file in the folder `path`; InputError when it is not there."""
    folder = expanded(path)
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
    """16 hexadecimal digits for the content of the rows, in any order."""
    lines = sorted(json.dumps(list(content), ensure_ascii=True) for content in contents)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def check_count(count: int, path: pathlib.Path, file: Published) -> None:
    """Raises: InputError if a file has another number of rows than the published one."""
    if count not in file.rows:
        wanted = " or ".join(f"{number:,}" for number in file.rows)
        raise InputError(
            f"{path}: has {count:,} rows, but the published {file.name} has {wanted}, so results "
            f"on it could not be compared with others. {_advice(file)}"
        )


def check_digest(found: Iterable[str], path: pathlib.Path, file: Published) -> str:
    """The published digest. Raises: InputError if it is not among those found for a file."""
    found = list(found)
    if file.digest not in found:
        raise InputError(
            f"{path}: has the right number of rows but other content (digest {found[0]}, "
            f"published: {file.digest}): a problem, an answer or a test was changed, so results on "
            f"it could not be compared with others. {_advice(file)}"
        )
    return file.digest


def string(row: dict[str, Any], name: str, path: pathlib.Path, number: int) -> str:
    """The string `row[name]`, which may be empty; line ends as \\n."""
    value = row.get(name)
    if isinstance(value, str) and not value.strip():
        return ""
    return jsonl.text_field(row, name, path, number).replace("\r\n", "\n")


def strings(row: dict[str, Any], name: str, path: pathlib.Path, number: int) -> list[str]:
    """The list of strings `row[name]`, which may be empty; each is stripped."""
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(
            f"{path}, line {number}: field {name!r} must be a list of strings, got "
            f"{str(value)[:60]!r}."
        )
    return [item.replace("\r\n", "\n").strip() for item in value]


def _advice(file: Published) -> str:
    return (
        f"Download the file from {file.url}. To use your own version, set "
        f"config.problems.name=jsonl, which does not check the content."
    )
