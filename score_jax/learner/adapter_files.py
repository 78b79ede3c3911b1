"""Writes adapters in `peft`'s layout: adapter_config.json and adapter_model.safetensors.

`peft.PeftModel.from_pretrained(model, folder)` and vLLM's LoRA loading read such a folder. There,
each layer's factors are separate tensors [outputs, inputs]: lora_A is our `down` transposed, lora_B
our `up` transposed. Layout: github.com/huggingface/peft,
docs/source/developer_guides/checkpoint.md.
"""

from pathlib import Path

import numpy as np

from score_jax import jsonfiles
from score_jax.config.settings import LoraSettings
from score_jax.learner import lora
from score_jax.model.families import ModelConfig
from score_jax.model.files import safetensors_file, tensor_names
from score_jax.problem import InputError
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
    modules = []
    for name, place in lora.targets(config, settings).items():
        down, up = (np.asarray(adapters[name][side], np.float32) for side in ("down", "up"))
        theirs = tensor_names.names(place, place.huggingface, config)
        for layer, tensor in enumerate(theirs):
            module = tensor.removesuffix(".weight")
            down_IR = down[layer].reshape(-1, settings.rank)
            up_RO = up[layer].reshape(settings.rank, -1)
            values[f"{_PREFIX}{module}.lora_A.weight"] = down_IR.T
            values[f"{_PREFIX}{module}.lora_B.weight"] = up_RO.T
        modules.append(place.huggingface.removesuffix(".weight").rsplit(".", 1)[-1])
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": sorted(modules),
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
        raise InputError(
            f"{folder}: the adapters cannot be written there ({error.strerror or error}). "
            "Free disk space or choose another folder."
        ) from None
