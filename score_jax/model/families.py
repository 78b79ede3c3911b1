"""The shape of a decoder, and the presets that are trained from nothing.

`config_formats.py` translates shapes from and to Hugging Face and GGUF; `transformer.py` is the
one decoder that they all describe.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder-only transformer; hashable, so that it can be static under jit."""

    family: str  # "llama"
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
