"""Architectures that are not computed: what they are, and the nearest that loads.

Names are compared without "-", "_" and ".", so that Hugging Face's model_type and GGUF's
general.architecture find the same row; a longer name wins.
"""

import re
from collections.abc import Collection
from typing import Any

from score_jax.problem import InputError

_EXPERTS = "a mixture of experts"
_HYBRID = "its layers are not all attention"
_IMAGES = "its text part differs from the families that load"
# Beginning of the name -> (what stands in the way, the nearest that loads).
OTHERS = {
    "mixtral": (_EXPERTS, "Mistral 7B"),
    "mistral3": ("its queries are scaled by their position", "Mistral 7B or Mistral Small 24B"),
    "mistral4": (_EXPERTS, "Mistral 7B"),
    "ministral": ("its layers have windows of several kinds", "Mistral 7B or Qwen3 8B"),
    "qwen2moe": (_EXPERTS, "Qwen2.5"),
    "qwen2vl": (_IMAGES, "Qwen2.5"),
    "qwen25vl": (_IMAGES, "Qwen2.5"),
    "qwen3moe": (_EXPERTS, "Qwen3 8B"),
    "qwen3vl": (_IMAGES, "Qwen3"),
    "qwen3next": (_HYBRID, "Qwen3"),
    "qwen35": (_HYBRID, "Qwen3 of the same size"),
    "gemma3n": ("its embeddings and layers are of another kind", "Gemma 3 4B"),
    "gemma4": ("its attention and embeddings are of another kind", "Gemma 3 4B"),
    "paligemma": (_IMAGES, "Gemma 3 4B"),
    "lfm2": (_HYBRID, "Qwen3 or SmolLM3 3B"),
    "gptoss": (_EXPERTS, "Qwen3 8B"),
    "phi": ("its layers are not those of Phi-3", "Phi-3 mini or Phi-4 mini"),
    "phimoe": (_EXPERTS, "Phi-4 mini"),
    "phi3small": ("its attention is sparse", "Phi-3 mini or Phi-4 mini"),
    "phi4multimodal": (_IMAGES, "Phi-4 mini"),
    "phi4mm": (_IMAGES, "Phi-4 mini"),
    "granitemoe": (_EXPERTS, "Granite 3.3"),
    "granitehybrid": (_HYBRID, "Granite 3.3"),
    "granitemoehybrid": (_HYBRID, "Granite 3.3"),
    "olmo": ("its norms are of another kind", "OLMo 2"),
    "olmo3": ("its layers have two kinds of rotary embeddings", "OLMo 2"),
    "olmoe": (_EXPERTS, "OLMo 2"),
    "llama4": (_EXPERTS, "Llama 3.1 8B"),
    "mllama": (_IMAGES, "Llama 3.1 8B"),
    "deepseek": (_EXPERTS, "DeepSeek-R1-Distill-Qwen or -Llama"),
    "smolvlm": (_IMAGES, "SmolLM2"),
    "mamba": ("it has no attention", "SmolLM2 or Qwen2.5"),
    "rwkv": ("it has no attention", "SmolLM2 or Qwen2.5"),
}


def known_family(name: Any, known: Collection[str], key: str, where: str) -> str:
    """The name if it is known. Raises: InputError with the nearest that loads, and the known."""
    if isinstance(name, str) and name in known:
        return name
    plain = re.sub("[-_.]", "", name).lower() if isinstance(name, str) else ""
    found = [other for other in OTHERS if plain.startswith(other)]
    if not found:
        raise InputError(
            f"{where}: unknown architecture {name!r} ({key}); known: {', '.join(known)}. "
            "Choose a checkpoint of a known architecture."
        )
    why, near = OTHERS[max(found, key=len)]
    raise InputError(
        f"{where}: architecture {name!r} ({key}) is not supported: {why}. The nearest that loads: "
        f"{near}; known: {', '.join(known)}."
    )


def refuse_experts(experts: Any, where: str) -> None:
    """Raises: InputError if a model of a known architecture has experts (Mixtral in GGUF)."""
    if experts:
        raise InputError(
            f"{where}: a mixture of {experts} experts is not supported. The nearest that loads: "
            "Mistral 7B or Qwen3 8B."
        )
