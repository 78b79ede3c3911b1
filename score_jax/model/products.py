"""A product of few rows with a large matrix, as fast as the matrix can be read.

    matmul(x_MD, w_DF) -> x @ w

A decode step of few rows reads every weight for hardly any arithmetic. XLA:CPU's matmul packs the
matrix first and reached 5 GB/s of 16 for 2 to 8 rows (one core, float32, 576 x 1536); adding up
the matrix row by row, eight at a time, reached 7 to 10. Other devices, other shapes: the matmul.
"""

import jax
import jax.numpy as jnp

ROWS_TOGETHER = 8
FEW_ROWS = range(2, 9)  # one row is XLA's own matrix-vector product, which is faster still
LARGE = 2**18  # elements; a smaller matrix stays in the core's cache


def matmul(x_MD: jax.Array, w_DF: jax.Array) -> jax.Array:
    """x @ w in their dtype, [M, F]."""
    if len(x_MD) not in FEW_ROWS or w_DF.size < LARGE or len(w_DF) % ROWS_TOGETHER:
        return x_MD @ w_DF
    return jax.lax.platform_dependent(x_MD, w_DF, cpu=_row_by_row, default=jnp.matmul)


def _row_by_row(x_MD: jax.Array, w_DF: jax.Array) -> jax.Array:
    def add(i: jax.Array, out_MF: jax.Array) -> jax.Array:
        for d in range(ROWS_TOGETHER):
            # Each row has a slice of its own: XLA fuses it into the sum instead of copying it.
            row = i * ROWS_TOGETHER + d
            x_M1 = jax.lax.dynamic_slice_in_dim(x_MD, row, 1, axis=1)
            w_1F = jax.lax.dynamic_slice_in_dim(w_DF, row, 1, axis=0)
            out_MF += x_M1.astype(jnp.float32) * w_1F.astype(jnp.float32)
        return out_MF

    zeros_MF = jnp.zeros((len(x_MD), w_DF.shape[1]), jnp.float32)
    out_MF = jax.lax.fori_loop(0, len(w_DF) // ROWS_TOGETHER, add, zeros_MF)
    return out_MF.astype(x_MD.dtype)
