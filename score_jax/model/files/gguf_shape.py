"""A model's shape from GGUF metadata. Source of keys and defaults: llama.cpp.

Departs from llama.cpp: a window that a file of Llama's or Phi-3's architecture states is used
(llama.cpp leaves it out), because the model was trained with it.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from score_jax.model.families import FAMILIES, Family, ModelConfig
from score_jax.model.files import gguf_rope, layer_kinds
from score_jax.model.files.config_formats import MOST_LAYERS, checked
from score_jax.model.files.other_families import known_family, refuse_experts
from score_jax.model.files.read_numbers import Numbers
from score_jax.problem import InputError


def from_gguf(
    metadata: Mapping[str, Any],
    *,
    tied: bool = False,
    rope_tables: Mapping[str, np.ndarray] | None = None,
    biases: Collection[str] = (),
    where: str = "the GGUF file",
) -> ModelConfig:
    """The shape that GGUF metadata describes, and the facts that only tensors show.

    Args:
      tied: the file has no head of its own (tensor output.weight).
      rope_tables: of gguf_rope.TABLES those that the file has; a number for each rotary pair.
      biases: the fields of ModelConfig of the biases that the file has.
    """
    known: dict[str, str] = {}
    for name, family in FAMILIES.items():
        known.setdefault(family.gguf, name)
    found = metadata.get("general.architecture")
    name = known[known_family(found, known, "general.architecture", where)]
    family = FAMILIES[name]
    prefix = f"{family.gguf}."
    stated = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    number = Numbers(stated, where, prefix)
    refuse_experts(stated.get("expert_count"), where)
    if stated.get("attention.sliding_window") and name == "llama":
        name = "mistral"  # Llama's architecture with a window
        family = FAMILIES[name]
    if stated.get("attention.sliding_window") and not (family.all_slide or family.window_period):
        raise InputError(
            f"{where}: {prefix}attention.sliding_window is not supported for this architecture "
            "(OLMo 3 has it). Choose another checkpoint."
        )
    if stated.get("rope.scaling.finetuned") is False and name == "granite":
        raise InputError(
            f"{where}: {prefix}rope.scaling.finetuned = False means a Granite without rotary "
            "embeddings, which is not supported. The nearest that loads: Granite 3.3."
        )

    def real(key: str, default_key: str, default: float = 0.0) -> float:
        """A number that is stated, or the family's default for that key of config.json."""
        value = stated.get(key, family.defaults.get(default_key, default))
        zero = key != "rope.freq_base"
        # The shortest decimal of the float32: GGUF stores 1e-5 as 9.99999975e-06.
        with np.errstate(over="ignore"):
            shortest = float(str(np.float32(number.real(key, value, zero=zero))))
        return number.real(key, shortest, zero=zero)

    heads, width = number("attention.head_count"), number("embedding_length")
    layers = number("block_count", most=MOST_LAYERS)
    head_width = width // heads
    if not family.partial_rotary:
        head_width = number("rope.dimension_count", head_width)
    head_width = number("attention.key_length", head_width)
    rotated = number("rope.dimension_count", head_width)
    for key in ("attention.value_length", "rope.dimension_count"):
        if number(key, head_width) != head_width and not (family.partial_rotary and "rope" in key):
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
    config = checked(
        ModelConfig(
            family=name,
            vocab_size=vocab_size,
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=number("attention.head_count_kv", heads),
            head_width=head_width,
            mlp_width=number("feed_forward_length"),
            rope_theta=real("rope.freq_base", "rope_theta", 10_000.0),
            rotary_width=0 if rotated == head_width else rotated,
            rotary_layers=layer_kinds.every_so_many(family, layers),
            norm_epsilon=real("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-5),
            tied=tied,
            max_positions=number("context_length", 2048),
            query_scalar=width / heads if layers == family.gguf_wide_scores else 0.0,
            attention_softcap=real("attn_logit_softcapping", "attn_logit_softcapping"),
            logit_softcap=real("final_logit_softcapping", "final_logit_softcapping"),
            windows=_windows(stated, family, layers, number),
            local_rope_theta=real("rope.freq_base_swa", "rope_local_base_freq"),
            **_multipliers(family, real),
            **{**family.fields, **_biases(biases, family, where)},
        ),
        where,
    )
    stretched = gguf_rope.from_gguf(stated, real, number, rope_tables or {}, config)
    return checked(dataclasses.replace(config, rope_scaling=stretched), where)


def _biases(found: Collection[str], family: Family, where: str) -> dict[str, Any]:
    """Those that the family's class in transformers can have; others are unexpected tensors."""
    keys = {"qkv_bias": "attention_bias", "output_bias": "attention_bias", "mlp_bias": "mlp_bias"}
    fields = dict.fromkeys((f for f in found if keys[f] in family.defaults), True)
    if "attention_bias" in family.defaults and ("qkv_bias" in fields) != ("output_bias" in fields):
        raise InputError(
            f"{where}: attention has biases of queries, keys and values or of its output, and not "
            f"both, which {family.architecture} cannot have. Choose another checkpoint."
        )
    return fields


def _multipliers(family: Family, real: Callable[..., float]) -> dict[str, Any]:
    """Granite's; llama.cpp reads 0 as none."""
    if "logits_scaling" not in family.defaults:
        return {}
    return {
        "embedding_multiplier": real("embedding_scale", "") or 1.0,
        "residual_multiplier": real("residual_scale", "") or 1.0,
        "attention_multiplier": real("attention.scale", ""),
        "logits_divisor": real("logit_scale", "") or 1.0,
    }


def _windows(
    stated: Mapping[str, Any], family: Family, layers: int, number: Numbers
) -> tuple[int, ...]:
    """The window of every layer; empty if no layer has one."""
    if family.all_slide:
        window = number("attention.sliding_window", 0, least=0)
        return (window,) * layers if window else ()
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
