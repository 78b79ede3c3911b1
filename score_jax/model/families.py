"""The shape of a decoder, how the families differ, and the presets trained from scratch.

A family is a row of FAMILIES and its tensor names in files/tensor_names.py; the rest is shared.
files/config_formats.py and files/gguf_shape.py translate shapes from and to Hugging Face and GGUF.
transformer.py is the decoder that all shapes describe.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from score_jax.problem import InputError, nearest


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
    rope_scaling: tuple[tuple[str, float | str], ...] | None = None
    activation: str = "silu"  # of the MLP's gate: a key of transformer.ACTIVATIONS
    scaled_embedding: bool = False  # embeddings are multiplied by the square root of the width
    norm_offset: float = 0.0  # added to norm weights: 1 where they are stored around zero
    post_norms: bool = False  # the outputs of attention and MLP are normed before they are added
    qk_norms: bool = False  # each head's queries and keys are normed before the rotation
    qkv_bias: bool = False
    attention_softcap: float = 0.0  # bounds attention scores, by tanh; 0: off
    logit_softcap: float = 0.0  # bounds logits, by tanh; 0: off
    query_scalar: float = 0.0  # scores are divided by its square root; 0: the head width
    # Per layer: how many tokens a token sees, itself included; 0: all. Empty: all layers see all.
    windows: tuple[int, ...] = ()
    local_rope_theta: float = 0.0  # of layers with a window, without scaling; 0: as other layers
    split_over: str = ""  # this is one device's share along that mesh axis; "": the whole model

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
    # The number of layers of the model whose scores are scaled by width / heads; GGUF does not
    # state the scale. Source: llama.cpp, f_attention_scale.
    gguf_wide_scores: int = 0


_QWEN = {"use_sliding_window": False, "sliding_window": 4096}
_GEMMA = {"head_dim": 256, "tie_word_embeddings": True}
_GEMMA_2_AND_3 = _GEMMA | {"query_pre_attn_scalar": 256, "sliding_window": 4096}
_GEMMA_FIELDS = {"activation": "gelu_tanh", "scaled_embedding": True, "norm_offset": 1.0}

FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", fields={}, defaults={}),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", fields={"qkv_bias": True}, defaults=_QWEN),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        "qwen3",
        fields={"qk_norms": True},
        defaults=_QWEN | {"head_dim": 128},
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
        defaults=_GEMMA_2_AND_3 | {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0},
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
