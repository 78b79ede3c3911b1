"""Problems from .jsonl files: one JSON object per line; errors name file and line.

A line has "problem" and "answer", and may have "id"; own_rows.py says what else it may hold, and
how other names are mapped. Blank lines are skipped. A file may be gzipped. JSON that spans several
lines is not read.
"""

import gzip
import hashlib
import json
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from score_jax.data.sets import own_rows
from score_jax.data.sets.own_rows import kind
from score_jax.problem import InputError, Problem, expanded

_GZIP = b"\x1f\x8b"  # how a compressed file begins, whatever its name
_PARQUET = b"PAR1"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SUFFIXES = (".jsonl", ".jsonl.gz")
HELD_OUT_SHARE = 0.1  # of a single file's problems go to the test split

# Reads a file: (number of the row counted from 1, row) …
Reader = Callable[[pathlib.Path], Iterator[tuple[int, Mapping[str, Any]]]]


def problems(
    path: str, split: str, fields: Mapping[str, str] | None = None, setting: str = "config.problems"
) -> list[Problem]:
    """Problems of one split of a folder (train.jsonl, test.jsonl) or of a single file.

    fields, setting: see own_rows.py.
    """
    return of_files(path, split, fields or {}, setting, rows, "line", SUFFIXES)


def of_files(
    path: str,
    split: str,
    fields: Mapping[str, str],
    setting: str,
    read: Reader,
    unit: str,
    suffixes: tuple[str, ...],
) -> list[Problem]:
    """Problems of one split of a folder or a single file, whose rows `read` yields.

    A single file is split by a hash of the problem's text: about a tenth is "test", the rest
    "train". So the splits share no problem text, and a line stays in its split when others are
    added.
    """
    names = f"train{suffixes[0]} and test{suffixes[0]}"
    if not path:
        raise InputError(
            f"--{setting}.path is missing: a {suffixes[0]} file, or a folder that holds {names}."
        )
    file = expanded(path)
    whole = not file.is_dir()
    prefix = file.name.partition(".")[0] if whole else f"{file.resolve().name}/{split}"
    if not whole:
        file = split_file(path, split, suffixes)
    elif split not in ("train", "test"):
        raise InputError(
            f"{file}: a single file has the splits train and test, not {split!r}. Name a folder "
            f"that holds {split}{suffixes[0]}."
        )
    found = own_rows.problems(
        ((f"{file}, {unit} {number}", f"{prefix}/{number}", row) for number, row in read(file)),
        fields,
        setting,
    )
    if whole:
        found = [problem for problem in found if held_out(problem.prompt) == (split == "test")]
    if not found:
        raise InputError(
            f"{file}: no problem of this file belongs to the {split!r} split (a single file is "
            f"split by a hash of each problem's text, {HELD_OUT_SHARE:.0%} to test), so there is "
            f"nothing to read. Add problems, or name a folder with {names}."
        )
    return found


def split_file(path: str, split: str, suffixes: tuple[str, ...] = SUFFIXES) -> pathlib.Path:
    """FOLDER/train.jsonl or FOLDER/test.jsonl, or gzipped; InputError when there is none."""
    folder = expanded(path)
    for suffix in suffixes:
        file = folder / f"{split}{suffix}"
        if file.is_file():
            return file
    state = f"{folder} is not a folder"
    if folder.is_dir():
        names = sorted(entry.name for entry in folder.iterdir())
        state = f"no such file; the folder holds {', '.join(names[:8]) or 'nothing'}"
    raise InputError(
        f"cannot read {folder / (split + suffixes[0])}: {state}. Set --config.problems.path to a "
        f"folder that holds train{suffixes[0]} and test{suffixes[0]}."
    )


def rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number counted from 1, object) for every line that is not blank."""
    content = _content(file)
    empty = True
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        if empty:
            _check_form(content, file)
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
            raise InputError(
                f"{file}, line {number}: not JSON ({error}). Each line must be one JSON object."
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{file}, line {number}: expected a JSON object, got {kind(row)}. "
                f"Each line must be one JSON object."
            )
        empty = False
        yield number, row
    if empty:
        raise InputError(f"{file}: holds no problems, so there is nothing to train on or evaluate.")


def _check_form(content: bytes, file: pathlib.Path) -> None:
    """Refuses files of another form as a whole, as no line of them could be read."""
    if content.startswith(_PARQUET):
        raise InputError(
            f"{file} is a Parquet file, not JSON lines. Set config.problems.name=parquet."
        )
    if content.startswith(_UTF16_MARKS) or b"\0" in content[:2]:
        form = "UTF-32" if b"\0\0" in content[:4] else "UTF-16"
        raise InputError(
            f"{file} is text in {form}, as PowerShell's > writes it, and problems are read as "
            f"UTF-8. Convert it: iconv -f {form} -t UTF-8 {file} > NEW.jsonl, or in PowerShell "
            f"Get-Content {file} | Set-Content -Encoding utf8 NEW.jsonl"
        )
    if content.lstrip()[:1] == b"[":
        raise InputError(
            f"{file} is one JSON array, as json.dump writes a list, and problems are read one JSON "
            'object a line. Write each in a line of its own: python -c "import json; [print('
            f"json.dumps(row)) for row in json.load(open('{file}'))]\" > NEW.jsonl"
        )
    if content.lstrip()[:1] == b"{" and content.split(None, 1)[0] == b"{":
        raise InputError(
            f"{file} has JSON objects over several lines, and problems are read one JSON object a "
            "line. Write each in a line of its own, without indentation."
        )


def _content(file: pathlib.Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}. Set --config.problems.path to a .jsonl file, "
            f"or to a folder that holds train.jsonl and test.jsonl."
        ) from error
    if content[:2] == _GZIP:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"cannot unpack {file}: {error}. It is damaged or incomplete; download it again."
            ) from error
    return content.removeprefix(_UTF8_MARK)


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
            f"{file}, line {number}: field {name!r} must be a string, got {kind(value)}. "
            f'Write it in quotes, such as "{name}": "42".'
        )
    if not value.strip():
        raise InputError(f"{file}, line {number}: field {name!r} is empty; it must hold text.")
    own_rows.check_characters(value, f"{file}, line {number}: field {name!r}")
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
