"""Rotary frequencies of a model, with the two kinds of scaling that Llama checkpoints use.

`linear` divides every frequency by a factor. `llama3` (Llama 3.1 and later) divides only the slow
ones, whose wavelength exceeds the first training context, with a ramp between.
Not handled: yarn, dynamic, longrope; config_formats.py refuses them.
"""

import numpy as np

from score_jax.model.families import ModelConfig

# The keys that each kind of scaling needs, by Hugging Face's names; the order is ours.
SCALINGS = {
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


def frequencies(config: ModelConfig, *, local: bool = False) -> np.ndarray:
    """Radians per position of each pair (i, i + E/2): [E/2] float32.

    local: those of layers with a window, which may have a base of their own (Gemma 3).

    Source: RoFormer, arXiv 2104.09864; `llama3` must agree with transformers' function.
    """
    half = config.head_width // 2
    # In float64, rounded once: the position multiplies the frequency's rounding error.
    own = local and bool(config.local_rope_theta)
    theta = config.local_rope_theta if own else config.rope_theta
    frequency = theta ** (-np.arange(half, dtype=np.float64) / half)
    if config.rope_scaling and not own:
        frequency = frequency / divisors(frequency, dict(config.rope_scaling))
    return frequency.astype(np.float32)


def divisors(frequency: np.ndarray, scaling: dict[str, float | str]) -> np.ndarray:
    """The number that each frequency is divided by."""
    factor = float(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return np.full_like(frequency, factor)
    assert scaling["rope_type"] == "llama3", scaling
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequency / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 1: fast, kept; 0: slow, divided
    return 1.0 / ((1.0 - kept) / factor + kept)
