"""Products of few rows against NumPy, in the form that this device gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import products

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rows", [1, 2, 8, 9])
@pytest.mark.parametrize("dtype, error", [("float32", 2e-6), ("bfloat16", 1e-2)])
def test_the_product_is_the_product(rows, dtype, error):
    x_MD = jnp.array(RNG.normal(size=(rows, 512)), dtype)
    w_DF = jnp.array(RNG.normal(size=(512, 520)), dtype)
    out_MF = jax.jit(products.matmul)(x_MD, w_DF)
    assert out_MF.dtype == dtype
    expected_MF = np.asarray(x_MD, np.float64) @ np.asarray(w_DF, np.float64)
    np.testing.assert_allclose(out_MF, expected_MF, rtol=0, atol=error * np.abs(expected_MF).max())


@pytest.mark.parametrize(
    "rows, width, by_row",
    [
        (1, 512, False),
        (2, 512, True),
        (8, 512, True),
        (9, 512, False),
        (4, 510, False),
        (4, 64, False),
    ],
)
def test_only_few_rows_with_a_large_matrix_are_added_row_by_row(rows, width, by_row):
    lowered = jax.jit(products.matmul).lower(jnp.ones((rows, width)), jnp.ones((width, 520)))
    assert ("while" in lowered.as_text()) == by_row
