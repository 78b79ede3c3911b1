"""GGUF files: metadata, and tensors dequantised by rows.

The `gguf` package knows the quantised formats and dequantises; gguf_metadata.py reads the file's
directory. Not handled: files split in several parts; they are refused by name.
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
from score_jax.text.tokenizers import gguf_metadata


def read(path: Path) -> tuple[dict[str, Any], dict[str, stored.StoredTensor]]:
    """The file's metadata as plain values, and its tensors by name.

    Raises: InputError when the file is incomplete, not GGUF, or quantised in an unknown way.
    """
    metadata, entries = gguf_metadata.directory(path)
    if metadata.get("split.count", 1) > 1:
        raise InputError(
            f"{path} is one of {metadata['split.count']} parts. Join them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
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
    return metadata, tensors


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
