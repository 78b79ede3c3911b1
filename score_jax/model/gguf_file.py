"""GGUF files: metadata, and tensors dequantised by rows.

The `gguf` package reads the directory and knows the quantised formats; the values are read from the
file here, block by block, because the package's own mapping keeps every page that it touched in
memory. Not handled: files split in several parts, and big-endian files.
"""

import functools
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quant_shape_to_byte_shape

from score_jax.model import stored
from score_jax.problem import InputError


def read(path: Path) -> tuple[dict[str, Any], dict[str, stored.StoredTensor]]:
    """The file's metadata as plain values, and its tensors by name.

    Tensors have the shape that Hugging Face gives them: GGUF lists the fastest axis first.
    Raises: InputError when the file is cut short, not GGUF, or quantised in an unknown way.
    """
    size = path.stat().st_size
    try:
        reader = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the reader fails on damaged files in many ways, none its own
        raise InputError(
            f"{path} ({size} bytes) is not a whole GGUF file: {error or type(error).__name__}. "
            "A download or copy was probably cut short: fetch the file again."
        ) from None
    if int(metadata.get("split.count", 1)) > 1:
        raise InputError(
            f"{path} is one of {metadata['split.count']} parts. Join them first: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    tensors = {}
    for entry in reader.tensors:
        if not _known(entry.tensor_type):
            raise InputError(
                f"{path}: tensor {entry.name} is stored as {entry.tensor_type.name}, which the "
                "gguf package cannot dequantise. Use a file of another quantisation, e.g. Q8_0."
            )
        shape = tuple(int(n) for n in reversed(entry.shape))
        read_rows = functools.partial(
            _read_rows, path, int(entry.data_offset), entry.tensor_type, shape
        )
        tensors[entry.name] = stored.StoredTensor(entry.name, shape, read_rows)
    return metadata, tensors


def _read_rows(
    path: Path,
    start: int,
    kind: gguf.GGMLQuantizationType,
    shape: tuple[int, ...],
    first: int,
    last: int,
) -> np.ndarray:
    byte_shape = quant_shape_to_byte_shape((last - first, *(shape[1:] or (1,))), kind)
    row_bytes = int(np.prod(byte_shape[1:]))
    data = stored.read_bytes(path, start + first * row_bytes, (last - first) * row_bytes)
    return gguf.dequantize(data.reshape(byte_shape), kind).reshape(last - first, *shape[1:])


def _known(kind: gguf.GGMLQuantizationType) -> bool:
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
