"""One layer of the transformer, and what it is made of; transformer.py stacks layers into a model.

    Block(config).apply({"params": layer}, x_BND, angles, attend)   -> x_BND, what `attend` keeps
    rms_norm, linear, rotate          norms, products with weights, rotary embedding
    rotary_angles(config, position)   -> the angles that `rotate` turns by

`Block` is a Flax Linen module that is only used through `apply`. Its attention is an argument, so
training (over the row itself) and decoding (over a cache) share every other line.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.model import lowrank, rope
from score_jax.model.families import ModelConfig
from score_jax.model.lowrank import LowRank

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}

Angles = tuple[jax.Array, jax.Array]  # cosines and sines

# (q_BNHE scaled, k_BNKE, v_BNKE) -> (out_BNHE, what the caller wants to keep)
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


def rms_norm(
    x: jax.Array,
    weight_D: jax.Array,
    epsilon: float,
    offset: float = 0.0,
    *,
    split_over: str = "",
) -> jax.Array:
    """Root-mean-square norm over the weight's axes, the last ones of x, times weight plus `offset`.

    split_over: the mesh axis over which those axes are split.
    """
    x32 = x.astype(jnp.float32)  # the mean of bf16 squares loses digits
    axes = tuple(range(-weight_D.ndim, 0))
    mean = jnp.mean(x32 * x32, axis=axes, keepdims=True)
    if split_over:
        mean = jax.lax.pmean(mean, split_over)
    x32 = x32 * jax.lax.rsqrt(mean + epsilon)
    return (x32 * (weight_D.astype(jnp.float32) + offset)).astype(x.dtype)


Product = Callable[[jax.Array, jax.Array], jax.Array]


def linear(
    x: jax.Array, w: jax.Array | LowRank, inputs: int = 1, product: Product = jnp.matmul
) -> jax.Array:
    """x [B, N, *inputs] times w [*inputs, *outputs]; sums over the first `inputs` axes of w.

    Computed as one two-dimensional matmul: written with separate batch and head axes, the backward
    pass takes XLA:CPU twice as long.
    """
    if isinstance(w, LowRank):
        if x.dtype != jnp.float32:
            # A product rounded to bfloat16 has no digits left for a small difference, which would
            # be lost in the sum: both are added before they are rounded.
            product = lowrank.unrounded
        difference = linear(linear(x, w.down, inputs), w.up, product=product)
        return (linear(x, w.base, inputs, product) + w.scale * difference).astype(x.dtype)
    contracted = math.prod(w.shape[:inputs])
    out = product(x.reshape(-1, contracted), w.reshape(contracted, -1))
    return out.reshape(*x.shape[:2], *w.shape[inputs:])


def rotary_angles(
    config: ModelConfig, position_BN: jax.Array, *, local: bool = False, columns: int = 0
) -> Angles:
    """Cosines and sines of the rotary embedding, each [B, N, 1, W/2] float32; W is rotated of E.

    local: those of layers with a window.
    columns: of whole rows, the columns; 0: rows in a cache.
    Raises: ValueError as `rope.frequencies`.
    Source: RoFormer, arXiv 2104.09864, in the half-split layout of Llama checkpoints.
    """
    frequency = rope.frequencies(config, local=local, columns=columns)
    angle = position_BN[..., None, None].astype(jnp.float32) * frequency
    amplitude = rope.amplitude(config, local=local)
    if amplitude == 1:
        return jnp.cos(angle), jnp.sin(angle)
    return amplitude * jnp.cos(angle), amplitude * jnp.sin(angle)


def unturned(angles: Angles) -> Angles:
    """The angles of a layer that does not rotate: all 0."""
    return jnp.ones_like(angles[0]), jnp.zeros_like(angles[1])


def rotate(x_BNHE: jax.Array, angles: Angles, scale: float = 1.0) -> jax.Array:
    """Rotates the pair (i, i + W/2) of every head by its position's angle; times `scale`.

    Values from W on are only scaled.
    """
    cos, sin = (scale * x for x in angles)
    width, rest = 2 * cos.shape[-1], []
    x32 = x_BNHE.astype(jnp.float32)
    if width < x32.shape[-1]:
        x32, rest = x32[..., :width], [scale * x32[..., width:]]
    a, b = jnp.split(x32, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, *rest], axis=-1).astype(
        x_BNHE.dtype
    )


class Block(nn.Module):
    """One layer: grouped-query attention, then a gated MLP, each with a residual connection.

    Both have a norm on their input (`pre_norms`), on their output (`post_norms`), or on both.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BND: jax.Array, angles: Angles, attend: Attend) -> tuple[jax.Array, Any]:
        c = self.config
        d, h, k, e, f = c.width, c.heads, c.kv_heads, c.head_width, c.mlp_width
        matrix = nn.initializers.variance_scaling  # std 1/sqrt(fan in)
        from_width = matrix(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
        w_query = self.param("query", from_width, (d, h, e))
        w_key = self.param("key", from_width, (d, k, e))
        w_value = self.param("value", from_width, (d, k, e))
        w_output = self.param(
            "output", matrix(1.0, "fan_in", "normal", in_axis=(0, 1), out_axis=2), (h, e, d)
        )
        plain = matrix(1.0, "fan_in", "normal")
        w_gate = self.param("gate", plain, (d, f))
        w_up = self.param("up", plain, (d, f))
        w_down = self.param("down", plain, (f, d))

        def norm(name: str, x: jax.Array, axes: int = 1, split_over: str = "") -> jax.Array:
            initial = nn.initializers.constant(1.0 - c.norm_offset)
            weight = self.param(name, initial, x.shape[-axes:])
            return rms_norm(x, weight, c.norm_epsilon, c.norm_offset, split_over=split_over)

        def biased(name: str, x: jax.Array, axes: int = 1) -> jax.Array:
            return x + self.param(name, nn.initializers.zeros, x.shape[-axes:])

        def added(x: jax.Array, post_norm: str) -> jax.Array:
            """What is added to the residual stream."""
            x = norm(post_norm, x) if c.post_norms else x
            if c.residual_multiplier != 1:  # in float32: it is seldom a bf16 number
                x = (c.residual_multiplier * x.astype(jnp.float32)).astype(x.dtype)
            return x

        y_BND = norm("attention_norm", x_BND) if c.pre_norms else x_BND
        q_BNHE, k_BNKE, v_BNKE = (linear(y_BND, w) for w in (w_query, w_key, w_value))
        if c.qkv_bias:
            q_BNHE = biased("query_bias", q_BNHE, 2)
            k_BNKE = biased("key_bias", k_BNKE, 2)
            v_BNKE = biased("value_bias", v_BNKE, 2)
        if c.qk_norms:
            q_BNHE, k_BNKE = norm("query_norm", q_BNHE), norm("key_norm", k_BNKE)
        if c.wide_qk_norms:
            q_BNHE = norm("wide_query_norm", q_BNHE, 2, c.split_over)
            k_BNKE = norm("wide_key_norm", k_BNKE, 2, c.split_over)
        # The rotation also applies the scores' divisor; alone it would be one more pass.
        q_BNHE = rotate(q_BNHE, angles, c.score_scale)
        out_BNHE, kept = attend(q_BNHE, rotate(k_BNKE, angles), v_BNKE)
        out_BND = summed(c, linear(out_BNHE, w_output, inputs=2))
        if c.output_bias:
            out_BND = biased("output_bias", out_BND)
        x_BND += added(out_BND, "attention_post_norm")

        y_BND = norm("mlp_norm", x_BND) if c.pre_norms else x_BND
        gate_BNF = linear(y_BND, w_gate)
        gate_BNF = ACTIVATIONS[c.activation](
            biased("gate_bias", gate_BNF) if c.mlp_bias else gate_BNF
        )
        up_BNF = linear(y_BND, w_up)
        y_BNF = gate_BNF * (biased("up_bias", up_BNF) if c.mlp_bias else up_BNF)
        out_BND = summed(c, linear(y_BNF, w_down))
        if c.mlp_bias:
            out_BND = biased("down_bias", out_BND)
        x_BND += added(out_BND, "mlp_post_norm")
        return x_BND, kept


def summed(config: ModelConfig, x: jax.Array) -> jax.Array:
    """The sum of x over the devices that share the model."""
    return jax.lax.psum(x, config.split_over) if config.split_over else x
