"""A tensor in a file, read a few rows at a time; and all of a model, still in its files.

Both file formats (safetensors_file.py, gguf_file.py) return their tensors in this form, so that
weights.py never holds more of a file than one block of rows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from score_jax.model.families import ModelConfig
from score_jax.model.files import tensor_names

BLOCK_BYTES = 2 * 2**20  # of values as float32: enough to read fast, small next to any model
LISTED = 20  # names in one message


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    name: str
    shape: tuple[int, ...]  # one or two axes; the first is read in blocks
    read_rows: Callable[[int, int], np.ndarray]  # (first, last) -> rows first..last-1, as values
    fault: str = ""  # why its values cannot be read; empty: they can


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    path: Path
    config: ModelConfig
    tensors: dict[str, StoredTensor]  # by the names of tensor_names.py
    gguf: bool  # False: Hugging Face; decides names and layout

    def names(self, place: tensor_names.Place) -> list[str]:
        """The tensors that make up a parameter, in the order in which they are stacked."""
        template = tensor_names.template(place, self.gguf)
        return list(tensor_names.names(place, template, self.config))


def blocks(tensor: StoredTensor) -> Iterator[tuple[slice, np.ndarray]]:
    """The tensor's rows in order, as (which rows, their values)."""
    rows = tensor.shape[0]
    row_bytes = 4 * int(np.prod(tensor.shape[1:]))
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for first in range(0, rows, step):
        last = min(rows, first + step)
        yield slice(first, last), tensor.read_rows(first, last)


def equal(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two tensors hold the same values."""
    return a.shape == b.shape and all(
        np.array_equal(x, y) for (_, x), (_, y) in zip(blocks(a), blocks(b), strict=True)
    )


def read_bytes(path: Path, offset: int, count: int) -> np.ndarray:
    """The bytes offset..offset+count-1 of a file, read without mapping the file into memory."""
    with path.open("rb") as file:
        file.seek(offset)
        return np.fromfile(file, np.uint8, count)


def part(tensor: StoredTensor, first: int, last: int) -> StoredTensor:
    """Some rows of a tensor, as a tensor."""

    def read_rows(start: int, stop: int) -> np.ndarray:
        return tensor.read_rows(first + start, first + stop)

    return StoredTensor(tensor.name, (last - first, *tensor.shape[1:]), read_rows)


def listed(names: Iterable[str]) -> str:
    """Names for a message, at most LISTED of them."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
