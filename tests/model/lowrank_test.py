import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import block, lowrank
from score_jax.model.lowrank import LowRank


def draw(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


X_BND = draw(2, 3, 6)
WEIGHTS = {
    "one input axis": (LowRank(draw(6, 2, 4), draw(6, 3), draw(3, 2, 4), 0.5), 1),
    "two input axes": (LowRank(draw(2, 3, 5), draw(2, 3, 4), draw(4, 5), 2.0), 2),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_applied_equals_the_slow_product_with_the_sum(name):
    w, inputs = WEIGHTS[name]
    x = X_BND if inputs == 1 else X_BND.reshape(2, 3, 2, 3)
    rank = w.down.shape[-1]
    down_IR = np.asarray(w.down, np.float64).reshape(6, rank)
    up_RO = np.asarray(w.up, np.float64).reshape(rank, -1)
    whole_IO = np.asarray(w.base, np.float64).reshape(6, -1) + w.scale * down_IR @ up_RO
    expected = np.asarray(X_BND, np.float64).reshape(-1, 6) @ whole_IO
    found = block.linear(x, w, inputs)
    assert found.shape == (2, 3, *w.base.shape[inputs:])
    np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        np.ravel(lowrank.merged({"w": w})["w"]), np.ravel(whole_IO), rtol=1e-5, atol=1e-6
    )


def test_a_merged_weight_is_rounded_once_and_keeps_its_dtype():
    w = LowRank(draw(6, 5).astype("bfloat16"), draw(6, 2), draw(2, 5), 1.0)
    found = lowrank.merged(w)
    exact = w.base.astype(jnp.float32) + w.down @ w.up
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_other_weights_are_left_alone():
    norm_D = draw(6)
    assert lowrank.merged({"norm": norm_D})["norm"] is norm_D
