"""A model's shape from and to Hugging Face's config.json; gguf_shape.py reads GGUF metadata.

Settings that change the numbers and that transformer.py does not implement (another activation,
attention to what follows) are refused by name, never ignored. rope_formats.py reads rotary ones.
"""

from collections.abc import Mapping
from typing import Any

from score_jax.model import rope
from score_jax.model.families import FAMILIES, Family, ModelConfig
from score_jax.model.files import layer_kinds, rope_formats
from score_jax.model.files.other_families import known_family, refuse_experts
from score_jax.model.files.read_numbers import Numbers
from score_jax.model.files.rope_formats import FULL, SLIDING
from score_jax.problem import InputError

# Our activation -> Hugging Face's names for it; we write the first. Gemma 1 files say "gelu" and
# mean its approximation by tanh; transformers reads them so, too.
ACTIVATIONS = {"silu": ("silu", "swish"), "gelu_tanh": ("gelu_pytorch_tanh", "gelu")}

# Keys of config.json that may have only these values, which mean what we compute.
FIXED = {"use_bidirectional_attention": (False, None)}
MULTIPLIERS = {  # ModelConfig's fields -> Granite's keys
    "embedding_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "attention_multiplier": "attention_multiplier",
    "logits_divisor": "logits_scaling",
}
# Folders of models that also see images: the family of their text part, described in text_config.
MULTIMODAL = {"gemma3": "gemma3_text"}
MOST_LAYERS = 1000  # a damaged count must not make us list millions of tensor names
MOST_HEAD_WIDTH = 2**16  # a damaged width must not make us compute gigabytes of frequencies


def from_huggingface(config: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The shape that a config.json describes, of transformers 4 or 5; `where` is for messages.

    Of a model that also sees images, the shape of its text part.
    """
    config = _text_part(config, where)
    name = known_family(config.get("model_type"), list(FAMILIES), "model_type", where)
    family = FAMILIES[name]
    _refuse_what_is_not_computed(config, family, where)
    given = dict(family.defaults) | {
        key: value for key, value in config.items() if value is not None
    }
    number = Numbers(given, where)
    refuse_experts(given.get("num_local_experts") or given.get("num_experts"), where)
    heads, width = number("num_attention_heads"), number("hidden_size")
    layers = number("num_hidden_layers", most=MOST_LAYERS)
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
            norm_epsilon=number.real("rms_norm_eps", given.get("rms_norm_eps", 1e-6)),
            tied=bool(given.get("tie_word_embeddings", False)),
            max_positions=number("max_position_embeddings", 2048),
            query_scalar=0.0
            if query_scalar in (0.0, head_width)
            else number.real("query_pre_attn_scalar", query_scalar),
            attention_softcap=number.real("attn_logit_softcapping", attention_cap or 0.0),
            logit_softcap=number.real("final_logit_softcapping", logit_cap or 0.0),
            windows=layer_kinds.windows(config, given, family, layers, number),
            rotary_layers=layer_kinds.rotary_layers(given, family, layers, number),
            **rope_formats.from_huggingface(given, family, head_width, number),
            **_multipliers(given, family, number),
            **{**family.fields, **_biases(given, family)},
        ),
        where,
    )


def _text_part(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The config of the text part, where the whole has one."""
    name = MULTIMODAL.get(str(config.get("model_type")))
    if name is None:
        return config
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise InputError(
            f"{where}: text_config is missing, so the shape of the text part is unknown. Fetch the "
            "file again."
        )
    outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return outer | dict(text) | {"model_type": name}


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """The config.json of this shape, readable by transformers 4 and 5."""
    family = FAMILIES[config.family]
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
        "tie_word_embeddings": config.tied,
        **rope_formats.to_huggingface(config, family),
    }
    # The other keys are written only for families that know them.
    if "attention_bias" in family.defaults:
        described["attention_bias"] = config.output_bias
    if "mlp_bias" in family.defaults:
        described["mlp_bias"] = config.mlp_bias
    described |= {
        key: getattr(config, field) for field, key in MULTIPLIERS.items() if key in family.defaults
    }
    if "no_rope_layer_interval" in family.defaults:
        described["no_rope_layers"] = [int(x) for x in config.rotary_layers] or [1] * config.layers
    if _may_cap(family):
        scalar = config.query_scalar or config.head_width
        described |= {
            "hidden_activation": activation,
            "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
            "attn_logit_softcapping": config.attention_softcap or None,
            "final_logit_softcapping": config.logit_softcap or None,
        }
    windows = config.layer_windows
    if family.all_slide:  # the class has no layer_types
        return described | {"sliding_window": max(windows) or None}
    if family.window_period:
        described["sliding_window"] = max(windows) or None
    if "use_sliding_window" in family.defaults:
        first = next((i for i, window in enumerate(windows) if window), config.layers)
        described |= {"use_sliding_window": any(windows), "sliding_window": max(windows) or None}
        if "sliding_window" in family.defaults:  # Qwen's
            described["max_window_layers"] = first
    if "sliding_window" in described:
        described["layer_types"] = [SLIDING if window else FULL for window in windows]
    return described


def _may_cap(family: Family) -> bool:
    """Whether the family's files may scale and cap scores and logits (Gemma 2 and 3)."""
    return "query_pre_attn_scalar" in family.defaults


def _refuse_what_is_not_computed(config: Mapping[str, Any], family: Family, where: str) -> None:
    meant: dict[str, tuple[Any, ...]] = dict(FIXED)
    activation = family.fields.get("activation", "silu")
    meant |= dict.fromkeys(("hidden_act", "hidden_activation"), (*ACTIVATIONS[activation], None))
    for key in ("attention_bias", "mlp_bias"):
        if key not in family.defaults:
            meant[key] = (False, None)
    if family.fields.get("qkv_bias"):
        del meant["attention_bias"]  # Qwen2's class has biases of its own and does not read the key
    if not family.defaults.get("attn_logit_softcapping"):
        meant["attn_logit_softcapping"] = (None,)  # Gemma 3 has the key, and no such cap
    for key, values in meant.items():
        if key in config and config[key] not in values:
            raise InputError(
                f"{where}: {key} = {config[key]!r} is not supported: this program computes "
                f"{key} = {values[0]!r}, so answers would differ. Choose another checkpoint."
            )


def _multipliers(given: Mapping[str, Any], family: Family, number: Numbers) -> dict[str, Any]:
    """Granite's."""
    known = {field: key for field, key in MULTIPLIERS.items() if key in family.defaults}
    return {field: number.real(key, given[key]) for field, key in known.items()}


def _biases(given: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The biases that config.json asks for, where the family's class knows the key."""
    found: dict[str, Any] = {}
    if "attention_bias" in family.defaults and given["attention_bias"]:
        found |= {"qkv_bias": True, "output_bias": True}
    if "mlp_bias" in family.defaults and given["mlp_bias"]:
        found["mlp_bias"] = True
    return found


def checked(config: ModelConfig, where: str) -> ModelConfig:
    """The shape itself. Raises: InputError if heads cannot be grouped or rotated."""
    if config.heads % config.kv_heads:
        raise InputError(
            f"{where}: {config.heads} heads cannot share {config.kv_heads} key/value heads evenly."
        )
    if config.head_width % 2 or config.head_width > MOST_HEAD_WIDTH:
        raise InputError(
            f"{where}: heads of width {config.head_width} cannot be rotated: it must be even, and "
            f"at most {MOST_HEAD_WIDTH}."
        )
    if not rope.is_finite(config):
        local = f", of windows {config.local_rope_theta}" if config.local_rope_theta else ""
        scaling = {k: v for k, v in config.rope_scaling or () if k not in rope.TABLES}
        raise InputError(
            f"{where}: its rotary settings (base {config.rope_theta}{local}, scaling {scaling}) "
            "give no finite rotation. Fetch the file again."
        )
    return config
