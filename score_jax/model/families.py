"""The shape of a decoder, what sets the families apart, and the presets trained from nothing.

A family is a row of FAMILIES here and its names in tensor_names.py; the rest is shared.
`config_formats.py` and `gguf_shape.py` translate shapes from and to Hugging Face and GGUF;
`transformer.py` is the one decoder that they all describe.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from score_jax.problem import InputError, nearest


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder-only transformer; hashable, so that it can be static under jit."""

    family: str  # a key of FAMILIES: whose names and layout the weights have in files
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
    rope_scaling: tuple[tuple[str, float | str], ...] | None = None
    activation: str = "silu"  # of the MLP's gate: a key of transformer.ACTIVATIONS
    scaled_embedding: bool = False  # embeddings are multiplied by the square root of the width
    norm_offset: float = 0.0  # added to norm weights: 1 where they are kept around zero
    post_norms: bool = False  # attention and MLP are normed before they are added, too
    qk_norms: bool = False  # each head's queries and keys are normed before they are turned
    qkv_bias: bool = False
    attention_softcap: float = 0.0  # bounds attention scores, by tanh; 0: off
    logit_softcap: float = 0.0  # bounds logits, by tanh; 0: off
    query_scalar: float = 0.0  # scores are divided by its square root; 0: the head width
    # Per layer: tokens that one sees, itself included; 0: all. Empty: all layers see all.
    windows: tuple[int, ...] = ()
    local_rope_theta: float = 0.0  # of layers with a window, without scaling; 0: as all others
    split_over: str = ""  # the mesh axis over which this is one device's share; "": all of it

    @property
    def layer_windows(self) -> tuple[int, ...]:
        """`windows`, one for every layer."""
        return self.windows or (0,) * self.layers

    def share(self, axis: str, parts: int) -> "ModelConfig":
        """What one of `parts` devices of a mesh axis holds of the model: sharding.RULES' `tensor`.

        Its functions run inside a shard_map over that axis, and sum over it what they must.
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
    defaults: Mapping[str, Any]  # of config.json, as transformers has them
    window_period: int = 0  # where nothing is said, every so many-th layer sees all; 0: all do
    # The models whose scores are scaled by width / heads, by their number of layers: GGUF does not
    # say. Source: llama.cpp, f_attention_scale.
    gguf_wide_scores: int = 0


_QWEN_DEFAULTS = {"use_sliding_window": False, "sliding_window": 4096}
_GEMMA = {"activation": "gelu_tanh", "scaled_embedding": True, "norm_offset": 1.0}
_GEMMA_DEFAULTS = {"head_dim": 256, "tie_word_embeddings": True}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", fields={}, defaults={}),
    "qwen2": Family(
        "Qwen2ForCausalLM", "qwen2", fields={"qkv_bias": True}, defaults=_QWEN_DEFAULTS
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        "qwen3",
        fields={"qk_norms": True},
        defaults=_QWEN_DEFAULTS | {"head_dim": 128},
    ),
    "gemma": Family("GemmaForCausalLM", "gemma", fields=_GEMMA, defaults=_GEMMA_DEFAULTS),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        "gemma2",
        fields=_GEMMA | {"post_norms": True},
        defaults=_GEMMA_DEFAULTS
        | {
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        window_period=2,
        gguf_wide_scores=46,  # 27B
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        "gemma3",
        fields=_GEMMA | {"post_norms": True, "qk_norms": True},
        defaults=_GEMMA_DEFAULTS
        | {
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
        window_period=6,
        gguf_wide_scores=62,  # 27B
    ),
}

PRESET = "preset:"  # before the name of one, where a source is named
PRESETS = {
    # Two layers are too few to add five digits in one go, and enough to look one sum up at a time;
    # the arithmetic task rests on exactly that.
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
        raise InputError(f"config.model.source={source!r} is no preset. {nearest(name, PRESETS)}")
    return PRESETS[name]
