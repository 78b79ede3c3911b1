"""Strict JSON on disk: no NaN, plain ASCII, and files that are complete or absent.

A file is written under another name and then renamed, so no reader sees half of one, even if the
run is killed. Text outside ASCII is escaped: a model may write anything, including lone surrogates
and unusual line ends, and a line of JSON must be one line for every reader.
"""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read(path: str | os.PathLike[str]) -> Any:
    """What a JSON file of any origin holds; editors of Windows begin it with a byte order mark.

    Raises: OSError, or ValueError if it is not JSON in UTF-8.
    """
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def write(path: str | os.PathLike[str], value: Any) -> None:
    """Writes one indented JSON document; `plain` says what it may hold."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_lines(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Writes JSON lines, one per row, in place of the file's old ones."""
    write_text(path, "".join(line(row) for row in rows))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, which is ASCII for JSON; a lone surrogate becomes "?"."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id separates two writers; in the same folder, so renaming is atomic.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_counted(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Writes objects as JSON lines; each says how many there are, so that a cut file is known."""
    found = [plain(row) for row in rows]
    write_lines(path, [{**row, "of": len(found)} for row in found] or [{"of": 0}])


def read_counted(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows that `write_counted` wrote, or an earlier version, without their number.

    Raises: OSError, or ValueError if the file is not whole.
    """
    found = [json.loads(row.decode("ascii")) for row in Path(path).read_bytes().splitlines()]
    if not found or not all(isinstance(row, dict) for row in found):
        raise ValueError("no rows")
    if found == [{"of": 0}]:
        return []
    if any(row.pop("of", len(found)) != len(found) for row in found):
        raise ValueError(f"{len(found)} rows are left of more")
    return found


def damaged(path: Path) -> Path:
    """Where a file goes that cannot be read."""
    return path.with_name(f"{path.name}.damaged")


def set_aside(path: Path, why: str) -> str:
    """Renames a file that cannot be read, which is then missing. Returns: a line that says so."""
    os.replace(path, damaged(path))
    return f"{path} cannot be read ({why}). It is set aside as {path.name}.damaged."


def line(value: Any) -> str:
    """The value as one line of JSON, its end included."""
    return json.dumps(plain(value), allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value in the types of JSON; numbers that are not finite become None.

    Takes dataclasses, mappings, iterables, numbers and arrays of numpy and jax. Anything else
    (paths, dtypes) becomes its `str`.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping) or hasattr(value, "items"):  # a ConfigDict is not a Mapping
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "tolist"):  # numpy's and jax's numbers and arrays
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)
