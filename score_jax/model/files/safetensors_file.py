"""Safetensors files, read by rows and written tensor by tensor.

The format is eight bytes (length of the header, little endian), a JSON header that gives each
tensor's dtype, shape and position, and the values. It is read and written here and not by its
library for three reasons: numpy has no bfloat16; reading in blocks of rows needs little host
memory; and a writer that takes tensors one by one never holds the model twice. Not handled: 8-bit
floats, integers, packed 4-bit types; such tensors say so, and huggingface.py refuses them.
"""

import functools
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from score_jax.model.files import stored
from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_metadata

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
MAX_HEADER_BYTES = 100 * 2**20  # the format's own limit


def read(path: Path) -> dict[str, stored.StoredTensor]:
    """The file's tensors by name; their values are read later, by rows.

    A tensor of an unknown dtype says so in its `fault`: it may be one that nobody needs.
    Raises: InputError when the file is incomplete or is not safetensors.
    """
    header, start = _read_header(path)
    size = path.stat().st_size
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape = str(entry["dtype"]), tuple(_whole(n) for n in entry["shape"])
            first, last = (_whole(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise _damaged(path, f"its header's entry of {name} is not valid") from None
        dtype = DTYPES.get(kind)
        if dtype is None:
            fault = f"{name} in {path.name} has dtype {kind}; known: {', '.join(DTYPES)}"
            tensors[name] = stored.StoredTensor(name, shape, _unreadable, fault)
            continue
        if last - first != dtype.itemsize * math.prod(shape):
            problem = f"tensor {name} has shape {list(shape)} of {kind} but {last - first} bytes"
            raise _damaged(path, problem)
        if start + last > size:
            problem = f"tensor {name} ends at byte {start + last} but the file has {size} bytes"
            raise _damaged(path, problem)
        read_rows = functools.partial(_read_rows, path, start + first, dtype, shape)
        tensors[name] = stored.StoredTensor(name, shape, read_rows)
    return tensors


def write(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: Any,
    values: Callable[[str], np.ndarray],
) -> None:
    """Writes tensors of one dtype; calls `values(name)` for each in turn.

    The file gets its name only when it is complete.
    """
    dtype = np.dtype(dtype)
    kind = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers requires it
    offset = 0
    for name, shape in shapes.items():
        end = offset + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that values are aligned
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, shape in shapes.items():
                value = np.asarray(values(name), dtype)
                assert value.shape == tuple(shape), (name, value.shape, shape)
                np.ascontiguousarray(value).view(np.uint8).tofile(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _whole(number: Any) -> int:
    """A length or place in a file; JSON has infinity too, as 1e999. Raises: ValueError."""
    if type(number) is not int or number < 0:
        raise ValueError(number)
    return number


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and the byte at which the values start."""
    gguf_metadata.refuse_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
            problem = f"the file has {size} bytes but its header should end at byte {8 + length}"
            raise _damaged(path, problem)
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError:
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header, 8 + length


def _read_rows(
    path: Path, start: int, dtype: np.dtype, shape: tuple[int, ...], first: int, last: int
) -> np.ndarray:
    row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
    data = stored.read_bytes(path, start + first * row_bytes, (last - first) * row_bytes)
    return data.view(dtype).reshape(last - first, *shape[1:])


def _unreadable(first: int, last: int) -> np.ndarray:
    raise AssertionError("a tensor with a fault was not refused")


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} is not a complete safetensors file: {problem}. "
        "A download or copy was probably interrupted: fetch the file again."
    )
