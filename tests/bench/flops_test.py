"""The FLOPs of an update against counting every product by hand."""

import numpy as np
import pytest

from score_jax.bench import flops
from score_jax.runtime import peaks
from tests import fakes


def by_hand(model, batch) -> float:
    """Forward FLOPs, token by token and layer by layer, times four."""
    m, total = model, 0
    for length, attempt_T in zip(batch.length, np.asarray(batch.attempt), strict=True):
        for position in range(length):
            for window in m.layer_windows:
                seen = min(position + 1, window or position + 1)
                total += (
                    2 * m.width * m.head_width * (m.heads + 2 * m.kv_heads)
                )  # query, key, value
                total += 2 * 2 * seen * m.heads * m.head_width  # scores, and what they weigh
                total += 2 * m.heads * m.head_width * m.width  # output
                total += 3 * 2 * m.width * m.mlp_width
        total += 2 * m.width * m.vocab_size * int(np.sum(attempt_T > 0))
    return 4.0 * total


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_every_product_is_counted_once(family):
    model, batch = fakes.model_of_family(family), fakes.batch(max_attempt_tokens=6)
    assert flops.of_update(model, batch) == by_hand(model, batch)


def test_the_share_of_a_peak_is_reported_only_if_the_peak_is_known():
    assert flops.utilisation(1e12, "bfloat16") is None  # a CPU


def test_the_share_of_a_peak_is_of_all_devices(monkeypatch):
    class Chip:
        device_kind = "TPU v5 lite"

    monkeypatch.setattr(peaks.jax, "devices", lambda: [Chip()])
    monkeypatch.setattr(flops.jax, "device_count", lambda: 4)
    assert flops.utilisation(197e12, "bfloat16") == 0.25
    assert flops.utilisation(197e12, "float32") is None
