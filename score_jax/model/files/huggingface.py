"""Opens a Hugging Face folder: config.json and safetensors, in one file or several.

    open_at(folder)     -> the model's shape and its tensors, by the names of tensor_names.py
    config_of(folder)   -> what config.json says of the shape; no other file is opened
    complete(folder)    -> whether its weights are all there

Tools save one model under several names: with or without "model.", inside of a wrapper's name, with
the embedding or the head alone where both are one. Such names are put right where only one reading
is possible, and refused otherwise. Left out: PyTorch's pickles, which run code when opened.
"""

import collections
import dataclasses
import re
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.model.families import ModelConfig
from score_jax.model.files import (
    config_formats,
    leftovers,
    quantised,
    safetensors_file,
    stored,
    tensor_names,
)
from score_jax.model.files.stored import StoredTensor, WeightFiles, listed
from score_jax.problem import InputError, expanded

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# transformers' classes of these names have a head, and so do the files that they save.
_WITH_HEAD = ("ForCausalLM", "ForConditionalGeneration")


def config_of(folder: Path) -> ModelConfig:
    """The shape that config.json describes.

    Raises: InputError if it is missing, damaged, of an unknown family, or of quantised weights.
    """
    described = _described(folder)
    config = config_formats.from_huggingface(described, str(folder / CONFIG))
    quantised.refuse(described, folder)
    return config


def open_at(folder: Path) -> WeightFiles:
    """Raises: InputError as `config_of` does, or if weights are missing or damaged."""
    config = config_of(folder)
    found = read(_files(folder), config.layers, folder)
    prefix = _prefix(found, config, folder)
    tensors = _renamed(found, prefix, config, folder)
    tied = _tied(tensors, config, folder, prefix)
    return WeightFiles(folder, dataclasses.replace(config, tied=tied), tensors, gguf=False)


def complete(folder: Path) -> bool:
    """Whether a folder holds weights, and all files that an index of them names."""
    if (folder / WEIGHTS).exists():
        return True
    try:
        return all((folder / name).is_file() for name in _index(folder / INDEX).values())
    except (OSError, InputError):
        return False


def read(files: list[Path], layers: int, path: Path) -> dict[str, StoredTensor]:
    """The tensors of some files, without those that a language model does not need.

    Raises: InputError if a file is damaged, or a tensor's values cannot be read.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        found |= safetensors_file.read(file)
    found = leftovers.without(found, layers, path)
    faults = [tensor.fault for tensor in found.values() if tensor.fault]
    if faults:
        raise quantised.error(path, f"{len(faults)} tensors like this: {faults[0]}")
    return found


def _described(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        described = jsonfiles.read(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), so the model's shape is unknown. Name a "
            f"Hugging Face folder with config.json and {WEIGHTS}, or a .gguf file."
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch the file again.") from None
    if not isinstance(described, dict):
        raise InputError(f"{path} is not a JSON object. Fetch the file again.")
    return described


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} holds neither {WEIGHTS} nor {INDEX} as a file.{_instead(folder)}"
        )
    files = {name: folder / name for name in sorted(set(_index(folder / INDEX).values()))}
    absent = [name for name, file in files.items() if not file.is_file()]
    if absent:
        raise InputError(
            f"{folder / INDEX} names {len(files)} files, and {len(absent)} of them are not in the "
            f"folder: {listed(absent)}. Fetch them."
        )
    return list(files.values())


def _index(path: Path) -> dict[str, str]:
    """Which file each tensor is in."""
    try:
        found = jsonfiles.read(path)["weight_map"]
        if all(isinstance(name, str) and expanded(path.parent / name) for name in found.values()):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{path} is not a JSON object with a weight_map from tensors to files. "
        "Fetch the file again."
    )


def _instead(folder: Path) -> str:
    """What to do about a folder that has weights of another kind."""
    pickles = [p.name for kind in ("*.bin", "*.pt", "*.pth") for p in sorted(folder.glob(kind))]
    if pickles:
        return (
            f" PyTorch's .bin files are not read: save the model with safe_serialization. Opening "
            f"a pickle ({listed(pickles)}) runs the code in it; if you trust it, convert it: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}', dtype='auto').save_pretrained('{folder}')\""
        )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        return (
            f" It holds {listed(others)}: fetch {INDEX} too, or save the model again with "
            "transformers."
        )
    return (
        " Fetch them; a model that is published as .bin files must be converted first, by "
        "save_pretrained of transformers."
    )


def _prefix(found: dict[str, StoredTensor], config: ModelConfig, folder: Path) -> str:
    """What stands before "layers.0." in the names of the model's own tensors."""
    known = [place.huggingface.format(layer=0) for place in tensor_names.places(config)]
    first = {name.removeprefix("model.layers.0.") for name in known if ".layers.0." in name}
    counts: collections.Counter[str] = collections.Counter()
    for name in found:
        match = re.fullmatch(r"(|.+\.)layers\.0\.(.+)", name)
        if match and match[2] in first:
            counts[match[1]] += 1
    most = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    if len(most) > 1:
        raise InputError(
            f"{folder} holds {len(most)} models, whose tensors begin with "
            f"{listed([repr(p) for p in most])}. Save the one to be trained in a folder of its own."
        )
    return most[0] if most else "model."


def _renamed(
    found: dict[str, StoredTensor], prefix: str, config: ModelConfig, folder: Path
) -> dict[str, StoredTensor]:
    """The tensors by the names of tensor_names.py."""
    ours = [place.huggingface for place in tensor_names.places(config)]
    inside = {name.split(".")[1] for name in ours if name.startswith("model.")}
    renamed: dict[str, str] = {}
    for name in found:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest.split(".")[0] in inside:
            renamed[name] = f"model.{rest}"
    # The head stands beside the model, inside of the same wrappers or of fewer.
    outer = prefix.split(".")[:-1]
    heads = [".".join([*outer[:depth], HEAD]) for depth in range(len(outer), -1, -1)]
    renamed |= dict.fromkeys([h for h in heads if h in found][:1], HEAD)
    names = [renamed.get(name, name) for name in found]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{folder} holds these tensors twice, under two names: {listed(twice)}. Save the model "
            "again with transformers."
        )
    return dict(zip(names, found.values(), strict=True))


def _tied(tensors: dict[str, StoredTensor], config: ModelConfig, folder: Path, prefix: str) -> bool:
    """Whether embedding and head are one tensor, which is then named as the embedding."""
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    if head and embedding:
        if config.tied and not stored.equal(head, embedding):
            raise InputError(
                f"{folder / CONFIG} says tie_word_embeddings but {HEAD} differs from {EMBEDDING}, "
                "so it is not clear which head is meant. Set tie_word_embeddings to false to use "
                f"{HEAD}."
            )
        if config.tied:
            del tensors[HEAD]  # a copy that some tools write
        return config.tied
    if head:  # no model is without an embedding
        tensors[EMBEDDING] = tensors.pop(HEAD)
    # A class with a head saves the head, unless it is the embedding; a class without one says
    # nothing about it.
    classes = _described(folder).get("architectures") or ()
    with_head = prefix.endswith("model.") and any(str(c).endswith(_WITH_HEAD) for c in classes)
    if config.tied or not (head or (embedding and with_head)):
        return config.tied
    kept, lacking = (HEAD, EMBEDDING) if head else (EMBEDDING, HEAD)
    leftovers.say(
        f"{folder / CONFIG} does not say tie_word_embeddings, but {lacking} is in no file, as in "
        f"models whose embedding is their head: {kept} is used for both."
    )
    return True
