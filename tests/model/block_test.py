"""The parts of a layer, worked by hand."""

import jax.numpy as jnp
import numpy as np

from score_jax.model import block
from tests import fakes


def test_rms_norm_by_hand():
    x_11D = jnp.array([[[3.0, 4.0]]])  # mean square 12.5
    out_11D = block.rms_norm(x_11D, jnp.array([1.0, 2.0]), 3.5)
    np.testing.assert_allclose(out_11D, [[[0.75, 2.0]]], atol=1e-5)
    assert block.rms_norm(x_11D.astype(jnp.bfloat16), jnp.ones(2), 0.0).dtype == jnp.bfloat16


def test_a_head_is_rotated_by_its_position():
    model = fakes.model(heads=1, kv_heads=1, head_width=2)
    angles = block.rotary_angles(model, jnp.array([[0, 1, 5]]))
    out_BNHE = block.rotate(jnp.tile(jnp.array([2.0, 0.0]), (1, 3, 1, 1)), angles)
    expected = [[2 * np.cos(p), 2 * np.sin(p)] for p in (0, 1, 5)]
    np.testing.assert_allclose(out_BNHE[0, :, 0], expected, atol=1e-5)
