"""A model's shape from and to Hugging Face's config.json and GGUF metadata.

Everything that would change the numbers and that transformer.py does not do (biases, another
activation, partial rotary embeddings, yarn) is refused by name, never ignored.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import ModelConfig
from score_jax.problem import InputError

# Our family -> the class that transformers builds for it. The key is also Hugging Face's
# `model_type` and GGUF's `general.architecture`.
ARCHITECTURES = {"llama": "LlamaForCausalLM"}

# What Hugging Face's file may say only in this way: (key, the values that mean what we compute).
FIXED = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
}


def from_huggingface(config: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The shape that a config.json describes, of transformers 4 or 5; `where` is for messages."""
    family = _family(config.get("model_type"), "model_type", where)
    for key, meant in FIXED.items():
        if key in config and config[key] not in meant:
            raise InputError(
                f"{where}: {key} = {config[key]!r} is not supported: the model here computes "
                f"{key} = {meant[0]!r}, so its answers would differ. Choose another checkpoint."
            )
    number = _Numbers(config, where)
    heads, width = number("num_attention_heads"), number("hidden_size")
    # transformers 5 keeps everything rotary in rope_parameters, version 4 in two separate keys
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rotary.get("rope_theta", config.get("rope_theta", 10_000.0))
    positions = number("max_position_embeddings", 2048)
    return _checked(
        ModelConfig(
            family=family,
            vocab_size=number("vocab_size"),
            layers=number("num_hidden_layers"),
            width=width,
            heads=heads,
            kv_heads=number("num_key_value_heads", heads),
            head_width=number("head_dim", width // max(heads, 1)),
            mlp_width=number("intermediate_size"),
            rope_theta=float(theta),
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            tied=bool(config.get("tie_word_embeddings", False)),
            max_positions=positions,
            rope_scaling=_scaling(rotary, positions, where),
        ),
        where,
    )


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """What config.json says of this shape, readable by transformers 4 and 5."""
    scaling = dict(config.rope_scaling) if config.rope_scaling else {}
    return {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.mlp_width,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling or None,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **scaling},
        "tie_word_embeddings": config.tied,
    }


def from_gguf(
    metadata: Mapping[str, Any],
    *,
    tied: bool = False,
    rope_divisors: np.ndarray | None = None,
    where: str = "the GGUF file",
) -> ModelConfig:
    """The shape that GGUF metadata describes, with the two things that only tensors tell.

    Args:
      tied: the file has no head of its own (tensor output.weight).
      rope_divisors: [E/2], tensor rope_freqs.weight, where Llama 3.1 files keep their stretching.
    """
    family = _family(metadata.get("general.architecture"), "general.architecture", where)
    prefix = f"{family}."
    number = _Numbers({k.removeprefix(prefix): v for k, v in metadata.items()}, where, prefix)
    heads, width = number("attention.head_count"), number("embedding_length")
    head_width = number("rope.dimension_count", width // max(heads, 1))
    for key in ("attention.key_length", "attention.value_length"):
        if number(key, head_width) != head_width:
            raise InputError(
                f"{where}: {prefix}{key} = {number(key)} but {prefix}rope.dimension_count = "
                f"{head_width}: heads that turn only in part are not supported."
            )
    tokens = metadata.get("tokenizer.ggml.tokens") or ()
    vocab_size = number("vocab_size", len(tokens) or None)
    if len(tokens) > vocab_size:
        raise InputError(
            f"{where}: its vocabulary has {len(tokens)} tokens but its embedding {vocab_size} "
            "rows, so some tokens would have no embedding. The file was converted wrongly: get "
            "another."
        )
    theta = _shortest(metadata.get(prefix + "rope.freq_base", 10_000.0))
    positions = number("context_length", 2048)
    rotary = {
        "rope_type": metadata.get(prefix + "rope.scaling.type", "none"),
        "factor": metadata.get(prefix + "rope.scaling.factor"),
    }
    scaling = _scaling(rotary, positions, where)
    if rope_divisors is not None:
        scaling = _llama3_scaling(rope_divisors, theta, where)
    return _checked(
        ModelConfig(
            family=family,
            vocab_size=vocab_size,
            layers=number("block_count"),
            width=width,
            heads=heads,
            kv_heads=number("attention.head_count_kv", heads),
            head_width=head_width,
            mlp_width=number("feed_forward_length"),
            rope_theta=theta,
            norm_epsilon=_shortest(metadata.get(prefix + "attention.layer_norm_rms_epsilon", 1e-5)),
            tied=tied,
            max_positions=positions,
            rope_scaling=scaling,
        ),
        where,
    )


def _family(name: Any, key: str, where: str) -> str:
    if name not in ARCHITECTURES:
        raise InputError(
            f"{where}: unknown architecture {name!r} ({key}); known: {', '.join(ARCHITECTURES)}. "
            "Choose a checkpoint of a known architecture."
        )
    return name


class _Numbers:
    """Looks positive whole numbers up, and names the one that is missing or wrong."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = ""):
        self.values, self.where, self.prefix = values, where, prefix

    def __call__(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise InputError(
                f"{self.where}: {self.prefix}{key} is missing, so the model's shape is unknown. "
                "Fetch the file again, or add the value."
            )
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(
                f"{self.where}: {self.prefix}{key} = {value!r} must be one whole number above 0."
            )
        return int(value)


def _shortest(value: float) -> float:
    """GGUF keeps float32: 1e-5 is meant where 9.99999975e-06 is read."""
    return float(str(np.float32(value)))


def _scaling(
    rotary: Mapping[str, Any], positions: int, where: str
) -> tuple[tuple[str, float | str], ...] | None:
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind in ("default", "none", None):
        return None
    if kind not in rope.SCALINGS:
        raise InputError(
            f"{where}: rotary scaling {kind!r} is not supported; known: default, "
            f"{', '.join(rope.SCALINGS)}. Choose another checkpoint of this model."
        )
    found = {"original_max_position_embeddings": positions, **rotary}
    missing = [key for key in rope.SCALINGS[kind] if not isinstance(found.get(key), int | float)]
    if missing:
        raise InputError(f"{where}: rotary scaling {kind!r} lacks {', '.join(missing)}.")
    return (("rope_type", kind), *((key, found[key]) for key in rope.SCALINGS[kind]))


def _llama3_scaling(
    divisors: np.ndarray, theta: float, where: str
) -> tuple[tuple[str, float | str], ...]:
    """The settings behind a table of divisors: all of Meta's releases share all but the factor."""
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


def _checked(config: ModelConfig, where: str) -> ModelConfig:
    if config.heads % config.kv_heads:
        raise InputError(
            f"{where}: {config.heads} heads cannot share {config.kv_heads} key/value heads evenly."
        )
    if config.head_width % 2:
        raise InputError(
            f"{where}: heads of width {config.head_width} cannot be rotated: it must be even."
        )
    return config
