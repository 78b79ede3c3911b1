"""Finds the weights that a source names and opens them, without reading values.

    path_of(source)   -> the folder or GGUF file; a hub id is found in the cache or downloaded
    config_of(path)   -> the model's shape, as its small files describe it
    open_at(path)     -> WeightFiles: the model's shape and its tensors, still in their files

Left out: PyTorch's pickles (they run code when opened), and tokenizers (text/).
"""

import re
from pathlib import Path

from score_jax.buckets import sources
from score_jax.model.families import ModelConfig
from score_jax.model.files import (
    adapters,
    gguf_file,
    gguf_rope,
    gguf_shape,
    hub,
    huggingface,
    leftovers,
    merged_adapters,
    tensor_names,
)
from score_jax.model.files.stored import WeightFiles
from score_jax.problem import InputError, expanded
from score_jax.text.tokenizers import gguf_files

_HUGGINGFACE = (huggingface.WEIGHTS, huggingface.INDEX, adapters.CONFIG)  # show what a folder holds


def path_of(source: str, weights: bool = True) -> Path:
    """The folder or GGUF file that a source names; a hub id is downloaded.

    Of a split GGUF it is the first part, of a folder that holds nothing else that file.

    weights: False downloads the small files only (shape and tokenizer).
    Raises: InputError when there is nothing of that name.
    """
    path = expanded(sources.model(source, weights))
    if path.is_dir():
        whole = any((path / name).exists() for name in _HUGGINGFACE)
        return path if whole else gguf_files.find(path) or path
    if found := gguf_files.find(path):
        return found
    if path.exists():
        raise InputError(
            f"{source} is a file but not a .gguf file. Name the folder with config.json and "
            f"{huggingface.WEIGHTS}, or a .gguf file."
        )
    if path.suffix.lower() != ".gguf" and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return hub.download(source, weights)
    raise InputError(
        f"{source}: no such file or folder. Name a .gguf file, a folder with config.json and "
        f"{huggingface.WEIGHTS}, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct."
    )


def config_of(path: Path) -> ModelConfig:
    """The shape of what `path_of` found; weights need not be there.

    Raises: InputError as `open_at` does, for what the small files show.
    """
    if path.is_file():
        return open_at(path).config
    if adapter := adapters.find(path):
        with adapter.of_base():
            return config_of(path_of(adapter.base, weights=False))
    return huggingface.config_of(path)


def open_at(path: Path) -> WeightFiles:
    """Raises: InputError when files are missing, damaged, or of an unknown architecture."""
    if path.is_file():
        return _open_gguf(path)
    if adapter := adapters.find(path):
        with adapter.of_base():
            base = open_at(path_of(adapter.base))
        return merged_adapters.merged(adapter, base)
    return huggingface.open_at(path)


def _open_gguf(path: Path) -> WeightFiles:
    metadata, tensors = gguf_file.read(path)
    tables = {name: tensors.pop(name) for name in gguf_rope.TABLES if name in tensors}
    config = gguf_shape.from_gguf(
        metadata,
        tied="output.weight" not in tensors,
        rope_tables={name: table.read_rows(0, table.shape[0]) for name, table in tables.items()},
        biases=[
            field
            for field, places in tensor_names.BIASES.items()
            if places[0].gguf.format(layer=0) in tensors
        ],
        where=str(path),
    )
    return WeightFiles(path, config, leftovers.without(tensors, config.layers, path), gguf=True)
