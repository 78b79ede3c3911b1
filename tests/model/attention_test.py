"""Attention over whole rows against a slow loop, in every combination of window and cap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import attention

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, H, K, E = 2, 7, 4, 2, 4
Q, KEY, VALUE = (
    np.random.default_rng(0).normal(size=(B, T, heads, E)).astype(np.float32) for heads in (H, K, K)
)


@pytest.mark.parametrize("softcap", [0.0, 0.6])
@pytest.mark.parametrize("window", [None, 0, 1, 3, T])
def test_a_token_attends_to_its_window_with_bounded_scores(window, softcap):
    attend = functools.partial(attention.over_rows, softcap=softcap)
    traced = None if window is None else jnp.int32(window)  # as a scan over layers has it
    out_BTHE = jax.jit(lambda window: attend(Q, KEY, VALUE, window=window))(traced)
    for b, t, h in np.ndindex(B, T, H):
        seen = range(max(0, t + 1 - window) if window else 0, t + 1)
        score_S = np.array([Q[b, t, h] @ KEY[b, s, h // (H // K)] for s in seen])
        if softcap:
            score_S = softcap * np.tanh(score_S / softcap)
        weight_S = np.exp(score_S) / np.exp(score_S).sum()
        expected_E = weight_S @ VALUE[b, list(seen), h // (H // K)]
        np.testing.assert_allclose(out_BTHE[b, t, h], expected_E, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [0, 70])
def test_values_and_gradients_in_blocks_of_queries_are_those_of_one_block(window, monkeypatch):
    columns = 2 * attention.LEAST_BLOCK + 5
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, columns, heads, E)).astype(np.float32) for heads in (H, K, K))

    def found():
        def weighed(q, k, v):
            out_BTHE = attention.over_rows(q, k, v, window=jnp.int32(window))
            return jnp.sum(jnp.sin(out_BTHE)), out_BTHE

        gradients, out_BTHE = jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return *gradients, out_BTHE

    assert len(attention.blocks(columns)) == 3
    in_blocks = found()
    monkeypatch.setattr(attention, "LEAST_BLOCK", columns)
    for one, other in zip(found(), in_blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_cap_bounds_what_is_large_and_keeps_what_is_small():
    x = jnp.array([-1e9, -0.01, 0.0, 0.01, 1e9])
    np.testing.assert_allclose(attention.soft_cap(x, 30.0), [-30, -0.01, 0, 0.01, 30], atol=1e-7)
    assert attention.soft_cap(x, 0.0) is x
