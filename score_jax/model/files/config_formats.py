"""A model's shape from and to Hugging Face's config.json; gguf_shape.py reads GGUF metadata.

Settings that change the numbers and that transformer.py does not implement (other biases, another
activation, partial rotary embeddings, yarn) are refused by name, never ignored.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import FAMILIES, Family, ModelConfig
from score_jax.problem import InputError

# Our activation -> Hugging Face's names for it; we write the first. Gemma 1 files say "gelu" and
# mean its approximation by tanh; transformers reads them so, too.
ACTIVATIONS = {"silu": ("silu", "swish"), "gelu_tanh": ("gelu_pytorch_tanh", "gelu")}

# Keys of config.json that may have only these values, which mean what we compute.
FIXED = {
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1.0, None),
    "use_bidirectional_attention": (False, None),
}
MOST_LAYERS = 1000  # a damaged count must not make us list millions of tensor names
SLIDING, FULL = "sliding_attention", "full_attention"  # Hugging Face's kinds of layers


def from_huggingface(config: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The shape that a config.json describes, of transformers 4 or 5; `where` is for messages."""
    name = known_family(config.get("model_type"), list(FAMILIES), "model_type", where)
    family = FAMILIES[name]
    _refuse_what_is_not_computed(config, family, where)
    given = dict(family.defaults) | {
        key: value for key, value in config.items() if value is not None
    }
    number = Numbers(given, where)
    heads, width = number("num_attention_heads"), number("hidden_size")
    positions = number("max_position_embeddings", 2048)
    layers = number("num_hidden_layers", most=MOST_LAYERS)
    # transformers 5 keeps everything rotary in rope_parameters, version 4 in separate keys
    rotary = given.get("rope_parameters") or given.get("rope_scaling") or {}
    number.group("rope_parameters", rotary)
    local = rotary.get(SLIDING) or {}  # Gemma 3 keeps it for each kind of layer
    rotary = rotary.get(FULL) or rotary
    for kind in (local, rotary):
        number.group("rope_parameters", kind)
    local_theta = 0.0
    if "rope_local_base_freq" in family.defaults:
        key = "rope_local_base_freq"
        local_theta = number.real(key, local.get("rope_theta", given[key]))
    if scaling(local, positions, where):
        raise InputError(
            f"{where}: rotary scaling of {SLIDING} layers is not supported. Choose another "
            "checkpoint of this model."
        )
    # null means no cap; a missing key means the family's default
    attention_cap, logit_cap = (
        config.get(key, family.defaults.get(key)) if _may_cap(family) else None
        for key in ("attn_logit_softcapping", "final_logit_softcapping")
    )
    query_scalar = given["query_pre_attn_scalar"] if _may_cap(family) else 0.0
    head_width = number("head_dim", width // max(heads, 1))
    return checked(
        ModelConfig(
            family=name,
            vocab_size=number("vocab_size"),
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=number("num_key_value_heads", heads),
            head_width=head_width,
            mlp_width=number("intermediate_size"),
            rope_theta=number.real(
                "rope_theta", rotary.get("rope_theta", given.get("rope_theta", 10_000.0))
            ),
            norm_epsilon=number.real("rms_norm_eps", given.get("rms_norm_eps", 1e-6)),
            tied=bool(given.get("tie_word_embeddings", False)),
            max_positions=positions,
            rope_scaling=scaling(rotary, positions, where),
            query_scalar=0.0
            if query_scalar in (0.0, head_width)
            else number.real("query_pre_attn_scalar", query_scalar),
            attention_softcap=number.real("attn_logit_softcapping", attention_cap or 0.0),
            logit_softcap=number.real("final_logit_softcapping", logit_cap or 0.0),
            windows=_windows(given, family, layers, number),
            local_rope_theta=local_theta,
            **family.fields,
        ),
        where,
    )


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """The config.json of this shape, readable by transformers 4 and 5."""
    family = FAMILIES[config.family]
    stretched = dict(config.rope_scaling) if config.rope_scaling else {}
    rotary: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta, **stretched}
    local: dict[str, Any] = {}
    if config.local_rope_theta:
        rotary = {
            FULL: rotary,
            SLIDING: {"rope_type": "default", "rope_theta": config.local_rope_theta},
        }
        local = {"rope_local_base_freq": config.local_rope_theta}
    activation = ACTIVATIONS[config.activation][0]
    described = {
        "architectures": [family.architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.mlp_width,
        "hidden_act": activation,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": stretched or None,
        "rope_parameters": rotary,
        "tie_word_embeddings": config.tied,
        **local,
    }
    # The other keys are written only for families that know them.
    if not config.qkv_bias:
        described["attention_bias"] = False
    if config.family == "llama":
        described["mlp_bias"] = False
    if _may_cap(family):
        scalar = config.query_scalar or config.head_width
        described |= {
            "hidden_activation": activation,
            "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
            "attn_logit_softcapping": config.attention_softcap or None,
            "final_logit_softcapping": config.logit_softcap or None,
        }
    windows = config.layer_windows
    if family.window_period:
        described["sliding_window"] = max(windows) or None
    if "use_sliding_window" in family.defaults:
        first = next((i for i, window in enumerate(windows) if window), config.layers)
        described |= {
            "use_sliding_window": any(windows),
            "sliding_window": max(windows) or None,
            "max_window_layers": first,
        }
    if "sliding_window" in described:
        described["layer_types"] = [SLIDING if window else FULL for window in windows]
    return described


def _may_cap(family: Family) -> bool:
    """Whether the family's files may scale and cap scores and logits (Gemma 2 and 3)."""
    return "query_pre_attn_scalar" in family.defaults


def known_family(name: Any, known: Collection[str], key: str, where: str) -> str:
    """The name if it is known. Raises: InputError listing the known ones."""
    if name not in known:
        raise InputError(
            f"{where}: unknown architecture {name!r} ({key}); known: {', '.join(known)}. "
            "Choose a checkpoint of a known architecture."
        )
    return name


def _refuse_what_is_not_computed(config: Mapping[str, Any], family: Family, where: str) -> None:
    meant: dict[str, tuple[Any, ...]] = dict(FIXED)
    activation = family.fields.get("activation", "silu")
    meant |= dict.fromkeys(("hidden_act", "hidden_activation"), (*ACTIVATIONS[activation], None))
    if not family.fields.get("qkv_bias"):
        meant["attention_bias"] = (False, None)
    if not family.defaults.get("attn_logit_softcapping"):
        meant["attn_logit_softcapping"] = (None,)  # Gemma 3 has the key, and no such cap
    for key, values in meant.items():
        if key in config and config[key] not in values:
            raise InputError(
                f"{where}: {key} = {config[key]!r} is not supported: this program computes "
                f"{key} = {values[0]!r}, so answers would differ. Choose another checkpoint."
            )


def _windows(
    given: Mapping[str, Any], family: Family, layers: int, number: "Numbers"
) -> tuple[int, ...]:
    """The window of every layer; empty if no layer has one."""
    kinds = given.get("layer_types")
    if family.window_period:
        period = number("sliding_window_pattern", family.window_period)
        kinds = kinds or [FULL if (i + 1) % period == 0 else SLIDING for i in range(layers)]
    elif "use_sliding_window" in family.defaults and given["use_sliding_window"]:
        first = number("max_window_layers", 28)  # layers from this one on slide
        kinds = kinds or [SLIDING if i >= first else FULL for i in range(layers)]
    else:
        return ()
    known = isinstance(kinds, list) and all(kind in (SLIDING, FULL) for kind in kinds)
    if not known or len(kinds) != layers:
        raise InputError(
            f"{number.where}: layer_types must name {layers} layers {SLIDING} or {FULL}, not "
            f"{kinds}. Fetch the file again."
        )
    if SLIDING not in kinds:
        return ()
    window = number("sliding_window")
    return tuple(window if kind == SLIDING else 0 for kind in kinds)


class Numbers:
    """Reads positive whole numbers by key; the error names the key that is missing or wrong."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = ""):
        self.values, self.where, self.prefix = values, where, prefix

    def __call__(self, key: str, default: int | None = None, most: int = 2**31 - 1) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise InputError(
                f"{self.where}: {self.prefix}{key} is missing, so the model's shape is unknown. "
                "Fetch the file again, or add the value."
            )
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not 1 <= value <= most:
            raise InputError(
                f"{self.where}: {self.prefix}{key} = {value!r} must be one whole number from 1 to "
                f"{most}. Fetch the file again."
            )
        return int(value)

    def real(self, key: str, value: Any) -> float:
        """`value` if it is a finite number of at least 0. Raises: InputError that names `key`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = None
        if value is None or not 0 <= value < math.inf:
            raise InputError(
                f"{self.where}: {self.prefix}{key} must be one number, 0 or more. Fetch the file "
                "again."
            )
        return float(value)

    def group(self, key: str, value: Any) -> None:
        """Raises: InputError if the value is not a JSON object."""
        if not isinstance(value, Mapping):
            raise InputError(
                f"{self.where}: {self.prefix}{key} must be a JSON object, not {value!r}. Fetch the "
                "file again."
            )


def scaling(
    rotary: Mapping[str, Any], positions: int, where: str
) -> tuple[tuple[str, float | str], ...] | None:
    """ModelConfig.rope_scaling of Hugging Face's settings. Raises: InputError for other kinds."""
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind in ("default", "none", None):
        return None
    if not isinstance(kind, str) or kind not in rope.SCALINGS:
        raise InputError(
            f"{where}: rotary scaling {kind!r} is not supported; known: default, "
            f"{', '.join(rope.SCALINGS)}. Choose another checkpoint of this model."
        )
    found = {"original_max_position_embeddings": positions, **rotary}
    missing = [key for key in rope.SCALINGS[kind] if not isinstance(found.get(key), int | float)]
    if missing:
        raise InputError(f"{where}: rotary scaling {kind!r} lacks {', '.join(missing)}.")
    return (("rope_type", kind), *((key, found[key]) for key in rope.SCALINGS[kind]))


def checked(config: ModelConfig, where: str) -> ModelConfig:
    """The shape itself. Raises: InputError if heads cannot be grouped or rotated."""
    if config.heads % config.kv_heads:
        raise InputError(
            f"{where}: {config.heads} heads cannot share {config.kv_heads} key/value heads evenly."
        )
    if config.head_width % 2:
        raise InputError(
            f"{where}: heads of width {config.head_width} cannot be rotated: it must be even."
        )
    return config
