"""The name and layout of each parameter in Hugging Face and GGUF files, per family.

A new family is a row of PLACES (and of families.FAMILIES). Files store linear weights as
[outputs, inputs]; ours are [inputs, outputs], with the heads as axes of their own.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from score_jax.model.families import ModelConfig


@dataclasses.dataclass(frozen=True)
class Place:
    path: str  # in our params; those under layers/ are stacked over layers
    huggingface: str
    gguf: str
    axes: str  # of one layer, in the letters of structs.py
    inputs: int = 0  # how many leading axes the product sums over; 0: stored in our layout
    interleaved: bool = False  # GGUF stores rotary pairs side by side, not half a head apart
    flat: bool = False  # stored as one axis

    @property
    def name(self) -> str:
        """The last name of the path, a key of transformer.AXES."""
        return self.path.rpartition("/")[2]

    @property
    def stacked(self) -> bool:
        return self.path.startswith("layers/")

    @property
    def is_norm(self) -> bool:
        """Whether `ModelConfig.norm_offset` is added to it; GGUF stores the sum."""
        return self.path.endswith("norm")


def _layer(path: str, huggingface: str, gguf: str, axes: str, inputs: int = 0, **more) -> Place:
    """A parameter of every layer, by its names inside a layer."""
    return Place(
        f"layers/{path}",
        f"model.layers.{{layer}}.{huggingface}",
        f"blk.{{layer}}.{gguf}",
        axes,
        inputs,
        **more,
    )


LLAMA = (
    Place("embedding", "model.embed_tokens.weight", "token_embd.weight", "VD"),
    Place("final_norm", "model.norm.weight", "output_norm.weight", "D"),
    Place("head", "lm_head.weight", "output.weight", "DV", 1),
    _layer("attention_norm", "input_layernorm.weight", "attn_norm.weight", "D"),
    _layer("query", "self_attn.q_proj.weight", "attn_q.weight", "DHE", 1, interleaved=True),
    _layer("key", "self_attn.k_proj.weight", "attn_k.weight", "DKE", 1, interleaved=True),
    _layer("value", "self_attn.v_proj.weight", "attn_v.weight", "DKE", 1),
    _layer("output", "self_attn.o_proj.weight", "attn_output.weight", "HED", 2),
    _layer("mlp_norm", "post_attention_layernorm.weight", "ffn_norm.weight", "D"),
    _layer("gate", "mlp.gate_proj.weight", "ffn_gate.weight", "DF", 1),
    _layer("up", "mlp.up_proj.weight", "ffn_up.weight", "DF", 1),
    _layer("down", "mlp.down_proj.weight", "ffn_down.weight", "FD", 1),
)
# All families but Llama store rotary pairs half a head apart in GGUF, too.
_PLAIN = tuple(dataclasses.replace(place, interleaved=False) for place in LLAMA)
_BIASES = (
    _layer("query_bias", "self_attn.q_proj.bias", "attn_q.bias", "HE", flat=True),
    _layer("key_bias", "self_attn.k_proj.bias", "attn_k.bias", "KE", flat=True),
    _layer("value_bias", "self_attn.v_proj.bias", "attn_v.bias", "KE", flat=True),
)
_QK_NORMS = (
    _layer("query_norm", "self_attn.q_norm.weight", "attn_q_norm.weight", "E"),
    _layer("key_norm", "self_attn.k_norm.weight", "attn_k_norm.weight", "E"),
)
# With norms before and after the MLP, Hugging Face's post_attention_layernorm is another norm.
_FOUR_NORMS = (
    *(place for place in _PLAIN if place.path != "layers/mlp_norm"),
    _layer(
        "attention_post_norm", "post_attention_layernorm.weight", "post_attention_norm.weight", "D"
    ),
    _layer("mlp_norm", "pre_feedforward_layernorm.weight", "ffn_norm.weight", "D"),
    _layer("mlp_post_norm", "post_feedforward_layernorm.weight", "post_ffw_norm.weight", "D"),
)

PLACES = {
    "llama": LLAMA,
    "qwen2": (*_PLAIN, *_BIASES),
    "qwen3": (*_PLAIN, *_QK_NORMS),
    "gemma": _PLAIN,
    "gemma2": _FOUR_NORMS,
    "gemma3_text": (*_FOUR_NORMS, *_QK_NORMS),
}


def places(config: ModelConfig) -> list[Place]:
    """The parameters that a model of this shape has."""
    return [p for p in PLACES[config.family] if not (config.tied and p.path == "head")]


def names(place: Place, template: str, config: ModelConfig) -> Iterator[str]:
    """The tensors that make up a parameter, in the order in which they are stacked."""
    for layer in range(config.layers if place.stacked else 1):
        yield template.format(layer=layer)


def shape(place: Place, config: ModelConfig) -> tuple[int, ...]:
    """Shape of one layer of the parameter, in our layout."""
    sizes = {
        "V": config.vocab_size,
        "D": config.width,
        "H": config.heads,
        "K": config.kv_heads,
        "E": config.head_width,
        "F": config.mlp_width,
    }
    return tuple(sizes[letter] for letter in place.axes)


def stored_shape(place: Place, config: ModelConfig) -> tuple[int, ...]:
    """Shape of one tensor of the parameter in a file."""
    ours = shape(place, config)
    if place.flat:
        return (math.prod(ours),)
    if not place.inputs:
        return ours
    return math.prod(ours[place.inputs :]), math.prod(ours[: place.inputs])


def as_stored(place: Place, ours: np.ndarray) -> np.ndarray:
    """A view of one layer of a parameter in the files' layout; writing to it fills `ours`."""
    if place.flat:
        return ours.reshape(-1)
    if not place.inputs:
        return ours
    return ours.reshape(math.prod(ours.shape[: place.inputs]), -1).T


def deinterleaved(place: Place, config: ModelConfig) -> np.ndarray:
    """For each row of an interleaved GGUF tensor, the row of the same values in our layout.

    One head of width 4: rows 0 1 2 3 in the file belong to rows 0 2 1 3, so that pairs (0, 1) and
    (2, 3) of the file become (0, 2) and (1, 3). Source: `permute` of llama.cpp's conversion.
    """
    half = config.head_width // 2
    rows, _ = stored_shape(place, config)
    return np.arange(rows).reshape(-1, 2, half).swapaxes(1, 2).reshape(-1)
