"""Kernels of accelerators against the attention that every device has: values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import attention, kernels

B, T, H, K, E = 1, 130, 4, 2, 8  # two blocks of a TPU's lanes, padded


def arrays(dtype: str = "float32", width: int = E):
    draw = np.random.default_rng(0)
    return [
        jnp.asarray(draw.normal(size=(B, T, heads, width)), dtype) for heads in (H, K, K, H)
    ]  # queries, keys, values, and what the result is weighed with


def pulled_back(attend, q, k, v, weight):
    """The result, and the gradients of its weighted sum."""

    @jax.jit
    def both(q, k, v):
        out, pull = jax.vjp(attend, q, k, v)
        return out, pull(weight)

    return jax.tree.leaves(both(q, k, v))


def assert_same(ours, theirs, tolerance: float):
    for x, y in zip(ours, theirs, strict=True):
        assert np.all(np.isfinite(x))
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "interpret",
    [
        pytest.param(True, id="interpreted"),
        pytest.param(
            False,
            id="on a TPU",
            marks=pytest.mark.skipif(jax.default_backend() != "tpu", reason="needs a TPU"),
        ),
    ],
)
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (5, 2.0)])
def test_splash_is_causal_attention_with_windows_and_caps(window, softcap, interpret):
    splash = functools.partial(kernels.splash, window=window, softcap=softcap, interpret=interpret)
    plain = functools.partial(attention.over_rows, window=jnp.int32(window), softcap=softcap)
    tolerance = 1e-4 if interpret else 2e-2
    assert_same(pulled_back(splash, *arrays()), pulled_back(plain, *arrays()), tolerance)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("window", [0, 5])
def test_cudnn_is_causal_attention_with_windows(window):
    cudnn = functools.partial(kernels.cudnn, window=window, softcap=0.0)
    plain = functools.partial(attention.over_rows, window=jnp.int32(window))
    qkv = arrays("bfloat16", width=64)
    assert_same(pulled_back(cudnn, *qkv), pulled_back(plain, *qkv), 5e-2)


def test_cudnn_refuses_to_leave_a_soft_cap_out():
    with pytest.raises(ValueError, match="cannot bound scores"):
        kernels.cudnn(*arrays()[:3], window=0, softcap=50.0)
