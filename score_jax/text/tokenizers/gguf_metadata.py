"""Reads the metadata of a GGUF file: key-value pairs with the model's vocabulary and settings.

The reader of the `gguf` package makes several numpy views per string, so it takes seconds for a
vocabulary of 49k tokens. This one reads the bytes once (49k tokens: 0.1 s, 262k tokens: 0.4 s) and
never the tensors. Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3.

Not handled: version 1, big-endian files, arrays of arrays.
"""

import mmap
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

from score_jax.problem import InputError

# The format's value types: code -> struct letter.
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


def read(path: str | pathlib.Path) -> Mapping[str, Any]:
    """Returns the file's metadata by key: numbers, strings, and tuples of either.

    Raises: InputError if the file is missing, is not a GGUF, or ends within its metadata."""
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(24)
            if len(head) < 24 or head[:4] != b"GGUF":
                raise InputError(
                    f"{path} is not a GGUF file: it begins with {head[:4]!r} instead of b'GGUF'. "
                    "Name a .gguf file, or a folder with tokenizer.json or tokenizer.model."
                )
            version, _, entries = struct.unpack_from("<IQQ", head, 4)
            if version not in (2, 3):
                raise InputError(
                    f"{path} has GGUF version {version}; only little-endian versions 2 and 3 can "
                    "be read. Convert the model again with a current converter."
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _entries(data, entries)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}. Check the path.") from error
    except (struct.error, UnicodeDecodeError, _Damaged) as error:
        raise InputError(
            f"{path} is incomplete or damaged: its metadata cannot be read to the end (the file "
            f"has {path.stat().st_size} bytes). Download it again."
        ) from error


class _Damaged(ValueError):
    """The file ends within the metadata, or the metadata makes no sense."""


def _entries(data: mmap.mmap, entries: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    offset = 24
    for _ in range(entries):
        key, offset = _string(data, offset)
        (kind,) = struct.unpack_from("<I", data, offset)
        metadata[key], offset = _value(data, offset + 4, kind)
    return metadata


def _value(data: mmap.mmap, offset: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, offset)
    if kind == _ARRAY:
        kind, count = struct.unpack_from("<IQ", data, offset)
        return _array(data, offset + 12, kind, count)
    (value,), offset = _array(data, offset, kind, 1)
    return value, offset


def _array(data: mmap.mmap, offset: int, kind: int, count: int) -> tuple[tuple, int]:
    if kind == _STRING:
        strings = []
        for _ in range(count):
            text, offset = _string(data, offset)
            strings.append(text)
        return tuple(strings), offset
    if kind not in _NUMBERS:
        raise _Damaged(f"value type {kind}")
    layout = f"<{count}{_NUMBERS[kind]}"
    return struct.unpack_from(layout, data, offset), offset + struct.calcsize(layout)


def _string(data: mmap.mmap, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, offset)
    end = offset + 8 + length
    if end > len(data):
        raise _Damaged(f"string of {length} bytes at {offset}")
    return data[offset + 8 : end].decode("utf-8"), end
