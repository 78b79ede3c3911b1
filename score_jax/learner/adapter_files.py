"""Writes adapters in `peft`'s layout: adapter_config.json and adapter_model.safetensors.

`peft.PeftModel.from_pretrained(model, folder)` and vLLM's LoRA loading read such a folder. There,
each layer's factors are separate tensors [outputs, inputs]: lora_A is our `down` transposed, lora_B
our `up` transposed. Weights that lie in one tensor (Phi-3's qkv_proj) get one adapter of the sum of
their ranks, whose lora_B is 0 where a factor does not belong to a row. Layout:
github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md.
"""

from pathlib import Path

import numpy as np

from score_jax import jsonfiles
from score_jax.config.settings import LoraSettings
from score_jax.learner import lora
from score_jax.model.families import ModelConfig
from score_jax.model.files import safetensors_file, tensor_names
from score_jax.model.files.tensor_names import Place
from score_jax.problem import FULL, InputError
from score_jax.structs import Params

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."  # of the wrapped model's own names


def save_adapters(
    folder: str | Path,
    config: ModelConfig,
    adapters: Params,
    settings: LoraSettings,
    *,
    source: str,
) -> None:
    """Writes both files in float32; each gets its name only when it is complete.

    Args:
      adapters: every array must be readable from this process.
      source: the base model's hub id or folder, stored in the config for loaders.
    Raises: InputError if the folder cannot be written.
    """
    folder = Path(folder)
    values: dict[str, np.ndarray] = {}
    modules, ranks = [], {}
    found = lora.targets(config, settings)
    for places in _tensors(config):
        adapted = [place for place in places if place.name in found]
        if not adapted:
            continue
        theirs = places[0].huggingface
        for layer, tensor in enumerate(tensor_names.names(places[0], theirs, config)):
            stem = _PREFIX + tensor.removesuffix(".weight")
            down_RI, up_OR = _factors(config, adapters, settings.rank, places, adapted, layer)
            values[f"{stem}.lora_A.weight"], values[f"{stem}.lora_B.weight"] = down_RI, up_OR
        module = theirs.removesuffix(".weight").rsplit(".", 1)[-1]
        modules.append(module)
        if len(adapted) > 1:
            ranks[module] = len(adapted)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": sorted(modules),
        "rank_pattern": {module: settings.rank * count for module, count in ranks.items()},
        "alpha_pattern": {module: settings.alpha * count for module, count in ranks.items()},
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_dropout": 0.0,
        "use_rslora": False,
    }
    shapes = {name: value.shape for name, value in values.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        safetensors_file.write(folder / WEIGHTS, shapes, np.float32, values.__getitem__)
        jsonfiles.write(folder / CONFIG, described)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{folder}: the adapters cannot be written there ({error.strerror or error}). "
            "Choose another folder."
        ) from None


def _tensors(config: ModelConfig) -> list[list[Place]]:
    """The weights that can have adapters, by the tensors that they lie in."""
    groups: dict[str, list[Place]] = {}
    for place in tensor_names.places(config):
        if place.stacked and place.inputs:
            groups.setdefault(place.huggingface, []).append(place)
    return list(groups.values())


def _factors(
    config: ModelConfig,
    adapters: Params,
    rank: int,
    places: list[Place],
    adapted: list[Place],
    layer: int,
) -> tuple[np.ndarray, np.ndarray]:
    """lora_A and lora_B of one layer's tensor, which holds `places`."""
    down_RI, up_OR = [], []
    for place in places:
        rows = tensor_names.stored_shape(place, config)[0]
        parts = np.zeros((rows, len(adapted), rank), np.float32)
        if place in adapted:
            down, up = (
                np.asarray(adapters[place.name][side][layer], np.float32) for side in ("down", "up")
            )
            down_RI.append(down.reshape(-1, rank).T)
            parts[:, adapted.index(place)] = up.reshape(rank, -1).T
        up_OR.append(parts.reshape(rows, -1))
    return np.concatenate(down_RI), np.concatenate(up_OR)
