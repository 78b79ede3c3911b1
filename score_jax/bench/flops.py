"""Model FLOPs of an update, and their share of a device's peak.

Counted once each: every matrix with every token, attention over the tokens that a token sees, the
head with every token that the policy wrote. The backward pass counts twice the forward pass; the
reference's forward pass counts once. Recomputation to save memory is not counted.
"""

import jax
import numpy as np

from score_jax.model.families import ModelConfig
from score_jax.runtime import peaks
from score_jax.structs import Batch


def of_update(model: ModelConfig, batch: Batch) -> float:
    """Policy forward and backward, and the reference's forward."""
    written = float(np.sum(np.asarray(batch.attempt) > 0))
    return 4 * sum(forward(model, np.asarray(batch.length, np.float64), written))


def forward(model: ModelConfig, length_B: np.ndarray, written: float) -> tuple[float, float]:
    """A forward pass of rows of these lengths: (layers, head).

    written: tokens that the head is applied to.
    """
    m = model
    heads = m.head_width * (2 * m.heads + 2 * m.kv_heads)
    per_token = 2 * m.layers * m.width * (heads + 3 * m.mlp_width)
    seen_B = sum(_seen(length_B, window) for window in m.layer_windows)
    attention = 4 * m.heads * m.head_width * float(np.sum(seen_B))
    return per_token * float(length_B.sum()) + attention, 2 * m.width * m.vocab_size * written


def _seen(length_B: np.ndarray, window: int) -> np.ndarray:
    """Pairs of a token and a token that it attends to, in rows of these lengths."""
    reach_B = np.minimum(length_B, window) if window else length_B
    return reach_B * (reach_B + 1) / 2 + (length_B - reach_B) * reach_B


def utilisation(flops_per_sec: float, dtype: str) -> float | None:
    """Share of the peak of all devices; None if the peak is not known (CPUs, other dtypes)."""
    peak = peaks.here()
    if peak is None or dtype != "bfloat16":
        return None
    return flops_per_sec / (peak.flops * jax.device_count())
