"""GGUF files: metadata, and tensors dequantised by rows.

The `gguf` package knows the quantised formats and dequantises. The file's directory is read here:
the package's reader keeps an array object for each token of the vocabulary, which for a small model
takes more time and memory than the weights. Not handled: files split in several parts, version 1,
and big-endian files; they are refused by name.
"""

import functools
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
from gguf.quants import quant_shape_to_byte_shape

from score_jax.model.files import stored
from score_jax.problem import InputError

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
# The format's number of a type -> struct's letter; 8 and 9 are STRING and ARRAY.
SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


def read(path: Path) -> tuple[dict[str, Any], dict[str, stored.StoredTensor]]:
    """The file's metadata as plain values, and its tensors by name.

    Shapes are in Hugging Face's order of axes: GGUF lists the fastest axis first.
    Raises: InputError when the file is incomplete, not GGUF, or quantised in an unknown way.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            metadata, entries = _read_directory(_Reader(file, size))
    except (_Damage, UnicodeDecodeError) as error:
        raise InputError(_damaged(path, size, str(error))) from None
    if metadata.get("split.count", 1) > 1:
        raise InputError(
            f"{path} is one of {metadata['split.count']} parts. Join them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    tensors = {}
    for name, shape, number, start in entries:
        try:
            kind = gguf.GGMLQuantizationType(number)
            byte_shape = quant_shape_to_byte_shape(shape if len(shape) > 1 else (*shape, 1), kind)
            _try(kind)
        except (ValueError, NotImplementedError):
            raise InputError(
                f"{path}: tensor {name} {list(shape)} is stored as type {_label(number)}, which "
                "cannot be dequantised. Use a file of another quantisation, e.g. Q8_0."
            ) from None
        end = start + math.prod(byte_shape)
        if end > size:
            raise InputError(_damaged(path, size, f"tensor {name} ends at byte {end}"))
        read_rows = functools.partial(_read_rows, path, start, kind, shape, byte_shape[1:])
        tensors[name] = stored.StoredTensor(name, shape, read_rows)
    return metadata, tensors


class _Damage(Exception):
    pass


class _Reader:
    """Reads the format's values one after another, never past the end of the file."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def bytes(self, count: int) -> bytes:
        # Checked first: a damaged length could ask for more memory than there is.
        if self.file.tell() + count > self.size:
            raise _Damage("its directory ends in the middle")
        return self.file.read(count)

    def numbers(self, letter: str, count: int) -> tuple:
        layout = f"<{count}{letter}"
        return struct.unpack(layout, self.bytes(struct.calcsize(layout)))

    def number(self, letter: str) -> Any:
        return self.numbers(letter, 1)[0]

    def string(self) -> str:
        return self.bytes(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, count = self.number("I"), self.number("Q")
            if of in SCALARS:
                return list(self.numbers(SCALARS[of], count))
            return [self.value(of) for _ in range(count)]
        if kind not in SCALARS:
            raise _Damage(f"its metadata has a value of unknown type {kind}")
        return self.number(SCALARS[kind])


def _read_directory(
    reader: _Reader,
) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]]]:
    """Metadata, and (name, shape, number of its type, first byte) of each tensor."""
    if reader.bytes(4) != b"GGUF":
        raise _Damage("it does not begin with GGUF")
    version = reader.number("I")
    if version not in VERSIONS:
        raise _Damage(f"version {version} is none of the known {VERSIONS}")
    tensors, values = reader.numbers("Q", 2)
    metadata = {}
    for _ in range(values):
        key = reader.string()
        metadata[key] = reader.value(reader.number("I"))
    entries = []
    for _ in range(tensors):
        name = reader.string()
        shape = reader.numbers("Q", reader.number("I"))[::-1]
        number, offset = reader.number("I"), reader.number("Q")
        entries.append((name, shape, number, offset))
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Damage(f"general.alignment = {alignment!r}")
    start = -(-reader.file.tell() // alignment) * alignment
    return metadata, [(*entry, start + offset) for *entry, offset in entries]


def _read_rows(
    path: Path,
    start: int,
    kind: gguf.GGMLQuantizationType,
    shape: tuple[int, ...],
    row_bytes: tuple[int, ...],
    first: int,
    last: int,
) -> np.ndarray:
    count = math.prod(row_bytes)
    data = stored.read_bytes(path, start + first * count, (last - first) * count)
    values = gguf.dequantize(data.reshape(last - first, *row_bytes), kind)
    return values.reshape(last - first, *shape[1:])


def _try(kind: gguf.GGMLQuantizationType) -> None:
    """Raises NotImplementedError where the package lists a type but cannot dequantise it."""
    gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)


def _label(number: int) -> str:
    known = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    return known.get(number, str(number))


def _damaged(path: Path, size: int, problem: str) -> str:
    return (
        f"{path} ({size} bytes) is not a complete GGUF file: {problem}. "
        "A download or copy was probably interrupted: fetch the file again."
    )
