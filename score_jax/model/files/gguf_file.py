"""GGUF files: metadata, and tensors dequantised by rows.

The `gguf` package knows the quantised formats and dequantises; gguf_metadata.py reads a file's
directory. The tensors of a split model are gathered from its parts.
"""

import functools
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quant_shape_to_byte_shape

from score_jax.model.files import stored
from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_files, gguf_metadata

_ADVICE = {  # by what a file is instead of a model
    "adapter": "; an adapter must be merged into it first, by llama-export-lora",
    "mmproj": "; this one is its part for images or sound, which is not used",
    "imatrix": "; this one holds statistics for quantising it",
}


def read(path: Path) -> tuple[dict[str, Any], dict[str, stored.StoredTensor]]:
    """The metadata as plain values, and the tensors by name, of a file or of the first of several.

    Raises: InputError when a file is incomplete, not GGUF, no model, or quantised in an unknown
        way, or a part is missing.
    """
    metadata, entries = gguf_metadata.directory(path)
    kind = metadata.get("general.type", "model")
    if kind != "model":
        raise InputError(
            f"{path} is a GGUF file of type {kind!r} (general.type), not a language model. Name "
            f"the model's own .gguf file{_ADVICE.get(kind, '')}."
        )
    count = metadata.get("split.count", 1)
    files = gguf_files.parts(path, count)
    tensors = _tensors(path, entries)
    for part in files[1:]:
        if part.is_file():
            tensors |= _tensors(part, gguf_metadata.directory(part)[1])
    # Every part states how many tensors there are in all: a missing part that held none is no loss.
    expected = metadata.get("split.tensors.count")
    if count > 1 and len(tensors) != expected:
        absent = [part.name for part in files if not part.is_file()]
        raise InputError(
            f"{path} is the first of {count} parts, which should hold {expected} tensors in all "
            f"and hold {len(tensors)}. "
            + (
                f"Not in {path.parent}: {stored.listed(absent)}. Fetch these."
                if absent
                else "They are not parts of one model: fetch them again."
            )
        )
    return metadata, tensors


def _tensors(path: Path, entries: list[gguf_metadata.Entry]) -> dict[str, stored.StoredTensor]:
    tensors, size = {}, path.stat().st_size
    for name, shape, number, start in entries:
        try:
            kind = gguf.GGMLQuantizationType(number)
            byte_shape = quant_shape_to_byte_shape(shape if len(shape) > 1 else (*shape, 1), kind)
            # The package lists some types that it cannot dequantise.
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except (ValueError, NotImplementedError):
            label = next((k.name for k in gguf.GGMLQuantizationType if k == number), number)
            raise InputError(
                f"{path}: tensor {name} {list(shape)} is stored as type {label}, which "
                "cannot be dequantised. Use a file of another quantisation, e.g. Q8_0."
            ) from None
        end = start + math.prod(byte_shape)
        if end > size:
            raise gguf_metadata.incomplete(path, f"tensor {name} ends at byte {end}")
        read_rows = functools.partial(_read_rows, path, start, kind, shape, byte_shape[1:])
        tensors[name] = stored.StoredTensor(name, shape, read_rows)
    return tensors


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
