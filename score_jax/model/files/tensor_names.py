"""The name and layout of each parameter in Hugging Face and GGUF files, per family.

A new family is a row of PLACES (and of families.FAMILIES). Files store linear weights as
[outputs, inputs]; ours are [inputs, outputs], with the heads as axes of their own. Parameters of
one name lie in one tensor, their outputs below each other in the order of the table (Phi-3).
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
# Only families whose conversion is Llama's store rotary pairs side by side in GGUF.
_PLAIN = tuple(dataclasses.replace(place, interleaved=False) for place in LLAMA)
# By the fields of ModelConfig that say whether the model has them.
BIASES = {
    "qkv_bias": (
        _layer("query_bias", "self_attn.q_proj.bias", "attn_q.bias", "HE", flat=True),
        _layer("key_bias", "self_attn.k_proj.bias", "attn_k.bias", "KE", flat=True),
        _layer("value_bias", "self_attn.v_proj.bias", "attn_v.bias", "KE", flat=True),
    ),
    "output_bias": (_layer("output_bias", "self_attn.o_proj.bias", "attn_output.bias", "D"),),
    "mlp_bias": (
        _layer("gate_bias", "mlp.gate_proj.bias", "ffn_gate.bias", "F"),
        _layer("up_bias", "mlp.up_proj.bias", "ffn_up.bias", "F"),
        _layer("down_bias", "mlp.down_proj.bias", "ffn_down.bias", "D"),
    ),
}
_QK_NORMS = (
    _layer("query_norm", "self_attn.q_norm.weight", "attn_q_norm.weight", "E"),
    _layer("key_norm", "self_attn.k_norm.weight", "attn_k_norm.weight", "E"),
)
# With norms before and after the MLP, Hugging Face's post_attention_layernorm is another norm.
_MLP_NORM = _layer("mlp_norm", "pre_feedforward_layernorm.weight", "ffn_norm.weight", "D")
_POST_NORMS = (
    _layer(
        "attention_post_norm", "post_attention_layernorm.weight", "post_attention_norm.weight", "D"
    ),
    _layer("mlp_post_norm", "post_feedforward_layernorm.weight", "post_ffw_norm.weight", "D"),
)
_WIDE_QK_NORMS = (
    _layer("wide_query_norm", "self_attn.q_norm.weight", "attn_q_norm.weight", "HE", flat=True),
    _layer("wide_key_norm", "self_attn.k_norm.weight", "attn_k_norm.weight", "KE", flat=True),
)


def _without(*paths: str) -> tuple[Place, ...]:
    return tuple(place for place in _PLAIN if place.name not in paths)


_FOUR_NORMS = (*_without("mlp_norm"), _MLP_NORM, *_POST_NORMS)
_FUSED = {
    **dict.fromkeys(("query", "key", "value"), ("self_attn.qkv_proj.weight", "attn_qkv.weight")),
    **dict.fromkeys(("gate", "up"), ("mlp.gate_up_proj.weight", "ffn_up.weight")),
}
_FUSED_PLACES = tuple(
    _layer(place.name, *_FUSED[place.name], place.axes, place.inputs)
    if place.name in _FUSED
    else place
    for place in _PLAIN
)

PLACES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": _PLAIN,
    "qwen3": (*_PLAIN, *_QK_NORMS),
    "phi3": _FUSED_PLACES,
    "olmo2": (*_without("attention_norm", "mlp_norm"), *_POST_NORMS, *_WIDE_QK_NORMS),
    "granite": LLAMA,
    "smollm3": LLAMA,
    "gemma": _PLAIN,
    "gemma2": _FOUR_NORMS,
    "gemma3_text": (*_FOUR_NORMS, *_QK_NORMS),
}


def places(config: ModelConfig) -> list[Place]:
    """The parameters that a model of this shape has."""
    table = PLACES[config.family]
    interleaved = any(place.interleaved for place in table)
    biases = [p for field, rows in BIASES.items() if getattr(config, field) for p in rows]
    # A bias of queries or keys is stored in the order of their weights' rows.
    biases = [
        dataclasses.replace(p, interleaved=interleaved and p.name in ("query_bias", "key_bias"))
        for p in biases
    ]
    return [p for p in (*table, *biases) if not (config.tied and p.path == "head")]


def template(place: Place, gguf: bool) -> str:
    """The name of a parameter's tensors, with {layer} where they are one per layer."""
    return place.gguf if gguf else place.huggingface


def stored_shapes(config: ModelConfig, gguf: bool) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a file, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place in places(config):
        rows, *columns = stored_shape(place, config)
        for name in names(place, template(place, gguf), config):
            above = shapes[name][0] if name in shapes else 0
            shapes[name] = (above + rows, *columns)
    return shapes


def rows(place: Place, config: ModelConfig, gguf: bool) -> tuple[int, int]:
    """The first of a parameter's rows in each of its tensors, and the row after its last."""
    shared = [p for p in places(config) if template(p, gguf) == template(place, gguf)]
    above = shared[: [p.path for p in shared].index(place.path)]
    first = sum(stored_shape(p, config)[0] for p in above)
    return first, first + stored_shape(place, config)[0]


def names(place: Place, name: str, config: ModelConfig) -> Iterator[str]:
    """The tensors that make up a parameter, in the order in which they are stacked."""
    for layer in range(config.layers if place.stacked else 1):
        yield name.format(layer=layer)


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
    rows = stored_shape(place, config)[0]
    return np.arange(rows).reshape(-1, 2, half).swapaxes(1, 2).reshape(-1)
