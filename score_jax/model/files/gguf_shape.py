"""A model's shape from GGUF metadata. Source of keys and defaults: llama.cpp."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import FAMILIES, Family, ModelConfig
from score_jax.model.files.config_formats import (
    MOST_LAYERS,
    Numbers,
    checked,
    known_family,
    scaling,
)
from score_jax.problem import InputError


def from_gguf(
    metadata: Mapping[str, Any],
    *,
    tied: bool = False,
    rope_divisors: np.ndarray | None = None,
    where: str = "the GGUF file",
) -> ModelConfig:
    """The shape that GGUF metadata describes, and the two facts that only tensors show.

    Args:
      tied: the file has no head of its own (tensor output.weight).
      rope_divisors: [E/2], tensor rope_freqs.weight, where Llama 3.1 files store rotary scaling.
    """
    known = {family.gguf: name for name, family in FAMILIES.items()}
    found = metadata.get("general.architecture")
    name = known[known_family(found, known, "general.architecture", where)]
    family = FAMILIES[name]
    prefix = f"{family.gguf}."
    stated = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    number = Numbers(stated, where, prefix)

    def real(key: str, default_key: str, default: float = 0.0) -> float:
        """A number that is stated, or the family's default for that key of config.json."""
        value = number.real(key, stated.get(key, family.defaults.get(default_key, default)))
        # The shortest decimal of the float32: GGUF stores 1e-5 as 9.99999975e-06.
        return float(str(np.float32(value)))

    heads, width = number("attention.head_count"), number("embedding_length")
    layers = number("block_count", most=MOST_LAYERS)
    head_width = number("attention.key_length", number("rope.dimension_count", width // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if number(key, head_width) != head_width:
            raise InputError(
                f"{where}: {prefix}{key} = {number(key)} but its heads are {head_width} wide: "
                "partial rotary embeddings, or values of another width, are not supported."
            )
    tokens = metadata.get("tokenizer.ggml.tokens") or ()
    vocab_size = number("vocab_size", len(tokens) or None)
    if len(tokens) > vocab_size:
        raise InputError(
            f"{where}: its vocabulary has {len(tokens)} tokens but its embedding {vocab_size} "
            "rows, so some tokens would have no embedding. The file was converted wrongly: get "
            "another file."
        )
    theta = real("rope.freq_base", "rope_theta", 10_000.0)
    positions = number("context_length", 2048)
    rotary = {
        "rope_type": stated.get("rope.scaling.type", "none"),
        "factor": stated.get("rope.scaling.factor"),
    }
    stretched = scaling(rotary, positions, where)
    if rope_divisors is not None:
        stretched = _llama3_scaling(rope_divisors, theta, where)
    return checked(
        ModelConfig(
            family=name,
            vocab_size=vocab_size,
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=number("attention.head_count_kv", heads),
            head_width=head_width,
            mlp_width=number("feed_forward_length"),
            rope_theta=theta,
            norm_epsilon=real("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-5),
            tied=tied,
            max_positions=positions,
            rope_scaling=stretched,
            query_scalar=width / heads if layers == family.gguf_wide_scores else 0.0,
            attention_softcap=real("attn_logit_softcapping", "attn_logit_softcapping"),
            logit_softcap=real("final_logit_softcapping", "final_logit_softcapping"),
            windows=_windows(stated, family, layers, number),
            local_rope_theta=real("rope.freq_base_swa", "rope_local_base_freq"),
            **family.fields,
        ),
        where,
    )


def _windows(
    stated: Mapping[str, Any], family: Family, layers: int, number: Numbers
) -> tuple[int, ...]:
    """The window of every layer; empty if no layer has one."""
    if not family.window_period:
        return ()
    window = number("attention.sliding_window", family.defaults["sliding_window"])
    pattern = stated.get("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):  # of every layer, whether it slides
        sliding = [bool(slides) for slides in pattern]
    else:
        period = number("attention.sliding_window_pattern", family.window_period)
        sliding = [(layer + 1) % period > 0 for layer in range(layers)]
    if len(sliding) != layers:
        raise InputError(
            f"{number.where}: {number.prefix}attention.sliding_window_pattern has {len(sliding)} "
            f"entries for {layers} layers. Fetch the file again."
        )
    return tuple(window if slides else 0 for slides in sliding) if any(sliding) else ()


def _llama3_scaling(
    divisors: np.ndarray, theta: float, where: str
) -> tuple[tuple[str, float | str], ...]:
    """The settings that give a table of divisors; Meta's releases differ in the factor only."""
    scaling: dict[str, float | str] = {
        "rope_type": "llama3",
        "factor": float(divisors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    frequency = theta ** (-np.arange(len(divisors)) / len(divisors))
    if not np.allclose(rope.divisors(frequency, scaling), divisors, rtol=1e-3):
        raise InputError(
            f"{where}: the rotary frequencies in rope_freqs.weight are not those of Llama 3, the "
            "only ones known. Load the checkpoint from its Hugging Face folder instead."
        )
    return tuple(scaling.items())
