"""Problems from .jsonl files: one JSON object per line; errors name file and line.

A line has "problem" and "answer" (strings) and may have "id". Any other text or number becomes a
tag (level, subject, …); other values are ignored. Blank lines are skipped. A file may be gzipped.
JSON that spans several lines is not read.
"""

import gzip
import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from score_jax.problem import InputError, Problem

_GZIP = b"\x1f\x8b"  # how a compressed file begins, whatever its name
HELD_OUT_SHARE = 0.1  # of a single file's problems go to the test split


def problems(path: str, split: str) -> list[Problem]:
    """Problems of one split of a folder (train.jsonl, test.jsonl) or of a single file.

    A single file is split by a hash of the problem's text: about a tenth is "test", the rest
    "train". So the splits share no problem text, and a line stays in its split when others are
    added.
    """
    if not path:
        raise InputError(
            "problem set 'jsonl' needs --config.problems.path: a .jsonl file, or a folder that "
            "holds train.jsonl and test.jsonl."
        )
    file = pathlib.Path(path).expanduser()
    if file.is_dir():
        return _read(split_file(path, split), f"{file.resolve().name}/{split}")
    found = [
        problem
        for problem in _read(file, file.stem)
        if held_out(problem.prompt) == (split == "test")
    ]
    if not found:
        raise InputError(
            f"{file}: no problem of this file belongs to the {split!r} split (a single file is "
            f"split by a hash of each problem's text, {HELD_OUT_SHARE:.0%} to test), so there is "
            f"nothing to read. Add problems, or name a folder with train.jsonl and test.jsonl."
        )
    return found


def split_file(path: str, split: str) -> pathlib.Path:
    """FOLDER/train.jsonl or FOLDER/test.jsonl; InputError when there is no such file."""
    folder = pathlib.Path(path).expanduser()
    file = folder / f"{split}.jsonl"
    if not file.is_file():
        state = "no such file" if folder.is_dir() else f"{folder} is not a folder"
        raise InputError(
            f"cannot read {file}: {state}. Set --config.problems.path to a folder that holds "
            f"train.jsonl and test.jsonl."
        )
    return file


def rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number counted from 1, object) for every line that is not blank."""
    lines = _content(file).split(b"\n")
    empty = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
            raise InputError(
                f"{file}, line {number}: not JSON ({error}). Each line must be one JSON object."
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{file}, line {number}: expected a JSON object, got {_kind(row)}. "
                f"Each line must be one JSON object."
            )
        empty = False
        yield number, row
    if empty:
        raise InputError(f"{file}: holds no problems, so there is nothing to train on or evaluate.")


def _content(file: pathlib.Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}. Set --config.problems.path to a .jsonl file, "
            f"or to a folder that holds train.jsonl and test.jsonl."
        ) from error
    if content[:2] != _GZIP:
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot unpack {file}: {error}. It is damaged or incomplete; download it again."
        ) from error


def text_field(row: dict[str, Any], name: str, file: pathlib.Path, number: int) -> str:
    """The string `row[name]`.

    Raises: InputError with file and line if it is missing, empty or not text.
    """
    if name not in row:
        raise InputError(
            f"{file}, line {number}: field {name!r} is missing. "
            f"The line's fields are {', '.join(map(repr, row)) or 'none'}."
        )
    value = row[name]
    if not isinstance(value, str):
        raise InputError(
            f"{file}, line {number}: field {name!r} must be a string, got {_kind(value)}. "
            f'Write it in quotes, such as "{name}": "42".'
        )
    if not value.strip():
        raise InputError(f"{file}, line {number}: field {name!r} is empty; it must hold text.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(
            f"{file}, line {number}: field {name!r} holds half of a surrogate pair, which is not a "
            f"character; tokenizers refuse it. Write the character itself in UTF-8."
        )
    return value


def unique(names: Iterable[tuple[int, str]], file: pathlib.Path) -> None:
    """Raises: InputError if two (line number, id) pairs have the same id."""
    line_of: dict[str, int] = {}
    for number, name in names:
        if name in line_of:
            raise InputError(
                f"{file}, line {number}: id {name!r} is already that of line {line_of[name]}; "
                f"transcripts and paired comparisons need one id per problem."
            )
        line_of[name] = number


def held_out(text: str) -> bool:
    """Whether a single file's problem with this text belongs to the test split."""
    digest = hashlib.sha256(text.strip().encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def _read(file: pathlib.Path, prefix: str) -> list[Problem]:
    found: list[Problem] = []
    names: list[tuple[int, str]] = []
    for number, row in rows(file):
        prompt = text_field(row, "problem", file, number)
        gold = text_field(row, "answer", file, number)
        name = row.get("id", f"{prefix}/{number}")
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(
                f"{file}, line {number}: field 'id' must be a string, got {_kind(name)}."
            )
        names.append((number, str(name)))
        found.append(Problem(id=str(name), prompt=prompt, gold=gold, tags=_tags(row)))
    unique(names, file)
    return found


def _tags(row: dict[str, Any]) -> dict[str, str]:
    extra = {key: value for key, value in row.items() if key not in ("id", "problem", "answer")}
    return {
        key: str(value)
        for key, value in extra.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), f"{value!r}"[:40])
