"""Refuses folders of quantised weights, and names what loads in their place.

Training needs weights of 16 or 32 bits, and dequantising is left to the tools that quantised. A
GGUF file is the exception: its types are dequantised while they are read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_jax.problem import InputError

# How the names of quantised copies end: "Qwen2.5-7B-Instruct-GPTQ-Int4", "…-unsloth-bnb-4bit".
_ENDING = re.compile(
    r"[-_.]((unsloth|dynamic)[-_])?(bnb|nf4|gptq|awq|hqq|exl\d|eetq|quanto|aqlm|fp8|fp4|nvfp4|mxfp4"
    r"|int[48]|[48]bits?|w\da\d+|quantized|mlx)([-_.].*)?$",
    re.IGNORECASE,
)


def refuse(described: Mapping[str, Any], path: Path) -> None:
    """Raises: InputError if a config.json says that the weights beside it are quantised."""
    for key in ("quantization_config", "compression_config", "quantization"):
        stated = described.get(key)
        if stated:
            raise error(path, f"config.json has a {key} of {_method(stated)}")


def error(path: Path, found: str) -> InputError:
    """What is raised for a folder of quantised weights; `found`: what shows that they are."""
    return InputError(
        f"{path} holds quantised weights ({found}), which are not read: training starts from "
        f"weights of 16 or 32 bits. Name the model they were made from{_source(path)}, or a GGUF "
        "file of it, e.g. Q8_0."
    )


def _method(stated: Any) -> str:
    if not isinstance(stated, Mapping):
        return repr(stated)
    bits = next((key for key in ("load_in_4bit", "load_in_8bit") if stated.get(key)), "")
    kind = stated.get("quant_method") or stated.get("quant_type") or bits or "unknown kind"
    detail = stated.get("format") or stated.get("bits")
    return f"{kind}, {detail}" if detail else str(kind)


def _source(path: Path) -> str:
    """The unquantised model, as far as the name of the quantised one shows it."""
    cached = [p.removeprefix("models--") for p in path.parts if p.startswith("models--")]
    name = cached[-1].replace("--", "/") if cached else path.name
    shorter = _ENDING.sub("", name)
    return f" (by this one's name {shorter})" if shorter not in ("", name) else ""
