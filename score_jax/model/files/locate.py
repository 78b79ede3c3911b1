"""Finds the weights that a source names and opens them, without reading values.

    path_of(source)   -> the folder or .gguf file; a hub id is found in the cache or downloaded
    open_at(path)     -> WeightFiles: the model's shape and its tensors, still in their files

Left out: PyTorch's pickles (they run code when opened), and tokenizers (text/).
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

from score_jax.model.families import ModelConfig
from score_jax.model.files import (
    config_formats,
    gguf_file,
    gguf_shape,
    safetensors_file,
    stored,
    tensor_names,
)
from score_jax.problem import InputError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LISTED = 20  # names in one message
# Files of the hub that are no weights. The card states the licence.
_SMALL = ["*.json", "*.model", "*.jinja", "README.md"]


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    path: Path
    config: ModelConfig
    tensors: dict[str, stored.StoredTensor]
    gguf: bool  # False: Hugging Face; decides names and layout

    def names(self, place: tensor_names.Place) -> list[str]:
        """The tensors that make up a parameter, in the order in which they are stacked."""
        template = place.gguf if self.gguf else place.huggingface
        return list(tensor_names.names(place, template, self.config))


def path_of(source: str, weights: bool = True) -> Path:
    """The folder or .gguf file that a source names; a hub id is downloaded.

    weights: False downloads the small files only (shape and tokenizer).
    Raises: InputError when there is nothing of that name.
    """
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.exists():
        raise InputError(
            f"{source} is a file but not a .gguf file. Name the folder with config.json and "
            f"{WEIGHTS}, or a .gguf file."
        )
    if path.suffix != ".gguf" and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return _download(source, weights)
    raise InputError(
        f"{source}: no such file or folder. Name a .gguf file, a folder with config.json and "
        f"{WEIGHTS}, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct."
    )


def open_at(path: Path) -> WeightFiles:
    """Raises: InputError when files are missing, damaged, or of an unknown architecture."""
    return _open_gguf(path) if path.suffix == ".gguf" else _open_folder(path)


def _download(name: str, weights: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{name} is not a local folder, and downloading it from the hub needs huggingface_hub. "
            "Run: pip install 'score-jax[hub]', or name a local folder."
        ) from None
    reason = ""
    for local in (True, False):  # what was downloaded before needs no network
        try:
            folder = Path(
                snapshot_download(
                    name,
                    local_files_only=local,
                    allow_patterns=_SMALL + (["*.safetensors"] if weights else []),
                )
            )
        except Exception as error:  # of the client, the network or the system
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            continue
        # The cache may hold the small files only; the client does not count that as an error.
        whole = (folder / "config.json").exists() and (
            not weights or any(folder.glob("*.safetensors"))
        )
        if whole or not local:
            return folder
    raise InputError(
        f"{name} is neither a local folder nor in the hub's cache, and could not be downloaded: "
        f"{reason}. Check the name and the network, or name a local folder."
    )


def _open_folder(folder: Path) -> WeightFiles:
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), so the model's shape is unknown. Name a "
            f"Hugging Face folder with config.json and {WEIGHTS}, or a .gguf file."
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch the file again.") from None
    if not isinstance(described, dict):
        raise InputError(f"{path} is not a JSON object. Fetch the file again.")
    config = config_formats.from_huggingface(described, str(path))

    if (folder / WEIGHTS).exists():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).exists():
        files = _shards(folder / INDEX)
    else:
        hint = ""
        if list(folder.glob("*.bin")):
            hint = " PyTorch's .bin files are not read: save the model with safe_serialization."
        raise InputError(f"{folder} holds neither {WEIGHTS} nor {INDEX}.{hint}")
    tensors: dict[str, stored.StoredTensor] = {}
    for file in files:
        tensors |= safetensors_file.read(file)

    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    if config.tied and head in tensors and embedding in tensors:
        if not _equal(tensors[head], tensors[embedding]):
            raise InputError(
                f"{path} says tie_word_embeddings but {head} differs from {embedding}, so it is "
                f"not clear which head is meant. Set tie_word_embeddings to false to use {head}."
            )
        del tensors[head]  # a copy that some tools write
    tensors = {k: v for k, v in tensors.items() if not k.endswith(".rotary_emb.inv_freq")}
    return WeightFiles(folder, config, tensors, gguf=False)


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
        files = {name: index.parent / name for name in sorted(names)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{index} is not a JSON object with a weight_map from tensors to files. "
            "Fetch the file again."
        ) from None
    absent = [name for name, file in files.items() if not file.is_file()]
    if absent:
        raise InputError(
            f"{index} names {len(files)} files, and {len(absent)} of them are not in the folder: "
            f"{listed(absent)}. Fetch them."
        )
    return list(files.values())


def _open_gguf(path: Path) -> WeightFiles:
    metadata, tensors = gguf_file.read(path)
    table = tensors.pop("rope_freqs.weight", None)
    config = gguf_shape.from_gguf(
        metadata,
        tied="output.weight" not in tensors,
        rope_divisors=None if table is None else table.read_rows(0, table.shape[0]),
        where=str(path),
    )
    return WeightFiles(path, config, tensors, gguf=True)


def _equal(a: stored.StoredTensor, b: stored.StoredTensor) -> bool:
    return a.shape == b.shape and all(
        np.array_equal(x, y)
        for (_, x), (_, y) in zip(stored.blocks(a), stored.blocks(b), strict=True)
    )


def listed(names: list[str]) -> str:
    """Names for a message, at most LISTED of them."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
