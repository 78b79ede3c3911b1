"""The shape of a decoder, how the families differ, and the presets trained from scratch.

A family is a row of FAMILIES and its tensor names in files/tensor_names.py; the rest is shared.
files/config_formats.py and files/gguf_shape.py translate shapes from and to Hugging Face and GGUF.
transformer.py is the decoder that all shapes describe.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from score_jax.problem import InputError, nearest

# Settings of a rotary scaling by Hugging Face's names; hashable, so no dict.
Scaling = tuple[tuple[str, float | str | tuple[float, ...]], ...]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder-only transformer; hashable, so that it can be static under jit."""

    family: str  # a key of FAMILIES: sets names and layout of the weights in files
    vocab_size: int  # V
    layers: int  # L
    width: int  # D
    heads: int  # H
    kv_heads: int  # K; H must be a multiple of it
    head_width: int  # E
    mlp_width: int  # F
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied: bool = False  # the head is the transposed embedding
    max_positions: int = 2048  # the context the weights were trained for
    rope_scaling: Scaling | None = None  # a key of rope.SCALINGS under "rope_type", and its numbers
    rotary_width: int = 0  # of a head, the first so many values are rotated; 0: all
    rotary_layers: tuple[bool, ...] = ()  # per layer, whether it rotates; empty: all do
    # Tokens of the longest row of a run, where the frequencies depend on it (rope.for_rows);
    # 0: whole rows use their own columns, and a cache refuses.
    longest_row: int = 0
    activation: str = "silu"  # of the MLP's gate: a key of block.ACTIVATIONS
    scaled_embedding: bool = False  # embeddings are multiplied by the square root of the width
    embedding_multiplier: float = 1.0  # of embeddings
    residual_multiplier: float = 1.0  # of what attention and MLP add to the residual stream
    logits_divisor: float = 1.0
    norm_offset: float = 0.0  # added to norm weights: 1 where they are stored around zero
    pre_norms: bool = True  # the inputs of attention and MLP are normed
    post_norms: bool = False  # the outputs of attention and MLP are normed before they are added
    qk_norms: bool = False  # each head's queries and keys are normed before the rotation
    wide_qk_norms: bool = False  # all heads' queries, and all heads' keys, are normed as one vector
    qkv_bias: bool = False
    output_bias: bool = False  # of attention's output
    mlp_bias: bool = False
    attention_softcap: float = 0.0  # bounds attention scores, by tanh; 0: off
    logit_softcap: float = 0.0  # bounds logits, by tanh; 0: off
    query_scalar: float = 0.0  # scores are divided by its square root; 0: the head width
    attention_multiplier: float = 0.0  # scores are multiplied by it instead; 0: query_scalar rules
    # Per layer: how many tokens a token sees, itself included; 0: all. Empty: all layers see all.
    windows: tuple[int, ...] = ()
    local_rope_theta: float = 0.0  # of layers with a window, without scaling; 0: as other layers
    split_over: str = ""  # this is one device's share along that mesh axis; "": the whole model

    @property
    def score_scale(self) -> float:
        """What a query times a key is multiplied by."""
        return self.attention_multiplier or (self.query_scalar or self.head_width) ** -0.5

    @property
    def layer_windows(self) -> tuple[int, ...]:
        """`windows`, one for every layer."""
        return self.windows or (0,) * self.layers

    def share(self, axis: str, parts: int) -> "ModelConfig":
        """The share of one of `parts` devices along a mesh axis, split as sharding.RULES' `tensor`.

        The model's functions then run inside a shard_map over that axis, and sum over it.
        """
        return dataclasses.replace(
            self,
            vocab_size=self.vocab_size // parts,
            heads=self.heads // parts,
            kv_heads=self.kv_heads // parts,
            mlp_width=self.mlp_width // parts,
            split_over=axis,
        )


@dataclasses.dataclass(frozen=True)
class Family:
    """What all models of a family have in common."""

    architecture: str  # the class that transformers builds for it
    gguf: str  # GGUF's general.architecture; Hugging Face's model_type is the key in FAMILIES
    fields: Mapping[str, Any]  # of ModelConfig, the same in all models
    defaults: Mapping[str, Any]  # of config.json, as in transformers
    window_period: int = 0  # every window_period-th layer sees all tokens; 0: all layers do
    all_slide: bool = False  # every layer has the window, where config.json states one
    partial_rotary: bool = False  # config.json may say that only a part of each head is rotated
    # The number of layers of the model whose scores are scaled by width / heads; GGUF does not
    # state the scale. Source: llama.cpp, f_attention_scale.
    gguf_wide_scores: int = 0


# Keys of config.json that the family's class in transformers has; other classes ignore them.
_ATTENTION_BIAS = {"attention_bias": False}
_BIASES = _ATTENTION_BIAS | {"mlp_bias": False}
_QWEN = {"use_sliding_window": False, "sliding_window": 4096}
_GEMMA = _ATTENTION_BIAS | {"head_dim": 256, "tie_word_embeddings": True}
_GEMMA_2_AND_3 = _GEMMA | {"query_pre_attn_scalar": 256, "sliding_window": 4096}
_GEMMA_FIELDS = {"activation": "gelu_tanh", "scaled_embedding": True, "norm_offset": 1.0}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", fields={}, defaults=_BIASES),
    "mistral": Family(
        "MistralForCausalLM",
        "llama",
        fields={},
        defaults={"sliding_window": 4096, "num_key_value_heads": 8},
        all_slide=True,
    ),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", fields={"qkv_bias": True}, defaults=_QWEN),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        "qwen3",
        fields={"qk_norms": True},
        defaults=_QWEN | _ATTENTION_BIAS | {"head_dim": 128},
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        "phi3",
        fields={},
        defaults={"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096},
        all_slide=True,
        partial_rotary=True,
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        "olmo2",
        fields={"pre_norms": False, "post_norms": True, "wide_qk_norms": True},
        defaults=_ATTENTION_BIAS | {"rms_norm_eps": 1e-5},
    ),
    "granite": Family(
        "GraniteForCausalLM",
        "granite",
        fields={},
        defaults=_BIASES
        | dict.fromkeys(
            (
                *("embedding_multiplier", "residual_multiplier"),
                *("attention_multiplier", "logits_scaling"),
            ),
            1.0,
        ),
    ),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        "smollm3",
        fields={},
        defaults=_BIASES
        | {
            "use_sliding_window": False,
            "no_rope_layer_interval": 4,
            "num_key_value_heads": 4,
            "rope_theta": 2_000_000.0,
            "tie_word_embeddings": True,
        },
    ),
    "gemma": Family("GemmaForCausalLM", "gemma", fields=_GEMMA_FIELDS, defaults=_GEMMA),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "gemma2",
        fields=_GEMMA_FIELDS | {"post_norms": True},
        defaults=_GEMMA_2_AND_3 | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        window_period=2,
        gguf_wide_scores=46,  # 27B
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        "gemma3",
        fields=_GEMMA_FIELDS | {"post_norms": True, "qk_norms": True},
        defaults=_GEMMA_2_AND_3
        | {
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
            # What multimodal folders of 4B and more leave out.
            "vocab_size": 262_208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131_072,
        },
        window_period=6,
        gguf_wide_scores=62,  # 27B
    ),
}

PRESET = "preset:"  # prefix of a preset's name in a source
PRESETS = {
    # Two layers are too few to add five digits in one step, and enough to add one digit at a time:
    # the arithmetic task relies on exactly that.
    "quickstart": ModelConfig(
        family="llama",
        vocab_size=16,
        layers=2,
        width=64,
        heads=4,
        kv_heads=4,
        head_width=16,
        mlp_width=128,
        rope_theta=100.0,
        max_positions=128,
    ),
}


def preset(source: str) -> ModelConfig:
    """The shape that "preset:NAME" means. Raises: InputError for an unknown name."""
    name = source.removeprefix(PRESET)
    if name not in PRESETS:
        raise InputError(
            f"config.model.source={source!r} is not a preset. {nearest(name, PRESETS)}"
        )
    return PRESETS[name]
