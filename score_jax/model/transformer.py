"""One decoder-only transformer for every family, as pure functions of (config, params).

`Block` is a Flax Linen module that is only used through `apply`. Its attention is an argument, so
training (over the row itself) and decoding (over a cache) share every other line.

    init(config, key)                              -> params
    hidden(config, params, tokens_BT)              -> hidden_BTD   scans stacked layers, no cache
    extend(config, params, cache, tokens_BN, ...)  -> hidden_BND   feeds N tokens to a cache
    step(config, params, cache, token_B, ...)      -> hidden_BD    feeds one token to a ring
    project(config, params, hidden_BND)            -> logits_BNV   float32
    logits(config, params, tokens_BT)              -> logits_BTV   hidden, then project

Params are a nested dict, layers stacked on a leading axis L (`AXES` names every axis):

    embedding [V,D]   final_norm [D]   head [D,V] (untied only)
    layers: attention_norm [L,D]  query [L,D,H,E]  key, value [L,D,K,E]  output [L,H,E,D]
            mlp_norm [L,D]  gate, up [L,D,F]  down [L,F,D]
            where the model has them: attention_post_norm, mlp_post_norm [L,D]
            query_norm, key_norm [L,E]  wide_query_norm [L,H,E]  wide_key_norm [L,K,E]
            query_bias [L,H,E]  key_bias, value_bias [L,K,E]  output_bias, down_bias [L,D]
            gate_bias, up_bias [L,F]

Matmuls run in the params' dtype; norms, rotary angles, softmax and logits in float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_jax.model import attention, lowrank, rope
from score_jax.model import cache as kv
from score_jax.model.cache import Cache
from score_jax.model.families import ModelConfig
from score_jax.model.lowrank import LowRank
from score_jax.runtime import sharding
from score_jax.structs import Params

# Logical names of every param's axes; sharding.RULES maps them onto the mesh.
AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", "width"),
    "head": ("width", "vocab"),
    "final_norm": (None,),
    "attention_norm": ("layers", None),
    "query": ("layers", "width", "heads", None),
    "key": ("layers", "width", "kv_heads", None),
    "value": ("layers", "width", "kv_heads", None),
    "output": ("layers", "heads", None, "width"),
    "mlp_norm": ("layers", None),
    "gate": ("layers", "width", "mlp"),
    "up": ("layers", "width", "mlp"),
    "down": ("layers", "mlp", "width"),
    "attention_post_norm": ("layers", None),
    "mlp_post_norm": ("layers", None),
    "query_norm": ("layers", None),
    "key_norm": ("layers", None),
    "wide_query_norm": ("layers", "heads", None),
    "wide_key_norm": ("layers", "kv_heads", None),
    "query_bias": ("layers", "heads", None),
    "key_bias": ("layers", "kv_heads", None),
    "value_bias": ("layers", "kv_heads", None),
    "output_bias": ("layers", None),
    "gate_bias": ("layers", "mlp"),
    "up_bias": ("layers", "mlp"),
    "down_bias": ("layers", None),
}

# What a layer keeps for the backward pass, as a checkpoint policy. "products" keeps the products
# with weights and recomputes the rest (norms, rotary, attention's scores and weights). Compared
# with "none", in the benchmark's small model, it costs 3% more FLOPs, takes a third of the memory,
# and is 1.2 times as fast on a CPU, where memory pages of large temporaries cost more than
# arithmetic.
REMAT = {
    "none": jax.checkpoint_policies.everything_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}

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


def _unturned(angles: Angles) -> Angles:
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
        out_BND = _summed(c, linear(out_BNHE, w_output, inputs=2))
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
        out_BND = _summed(c, linear(y_BNF, w_down))
        if c.mlp_bias:
            out_BND = biased("down_bias", out_BND)
        x_BND += added(out_BND, "mlp_post_norm")
        return x_BND, kept


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Random float32 params for training from scratch."""
    key_embedding, key_head, key_layers = jax.random.split(key, 3)

    def init_layer(key: jax.Array) -> Params:
        x_BND = jnp.zeros((1, 1, config.width))
        angles = rotary_angles(config, jnp.zeros((1, 1), jnp.int32), columns=1)
        return Block(config).init(key, x_BND, angles, lambda q, k, v: (q, None))["params"]

    embedding_VD = jax.random.normal(key_embedding, (config.vocab_size, config.width))
    params = {
        "embedding": embedding_VD / (config.width**0.5 if config.scaled_embedding else 1.0),
        "layers": jax.vmap(init_layer)(jax.random.split(key_layers, config.layers)),
        "final_norm": jnp.full((config.width,), 1.0 - config.norm_offset, jnp.float32),
    }
    if not config.tied:
        head_DV = jax.random.normal(key_head, (config.width, config.vocab_size))
        params["head"] = head_DV / config.width**0.5
    return params


def hidden(
    config: ModelConfig,
    params: Params,
    tokens_BT: jax.Array,
    *,
    remat: str = "none",
    kernel: str = "xla",
    mesh: Mesh | None = None,
) -> jax.Array:
    """Final hidden states of whole rows; causal, position = column. Returns [B, T, D].

    Rows may be right-padded: no real token attends to padding.
    remat: a key of REMAT; what the backward pass recomputes of a layer's forward pass.
    kernel: a key of attention.ATTENTIONS.
    mesh: over which rows and params are split.
    """
    columns = tokens_BT.shape[1]
    position_1T = jnp.arange(columns)[None]
    angles = rotary_angles(config, position_1T, columns=columns)
    local_angles = rotary_angles(config, position_1T, local=True, columns=columns)
    # A scan has one program for all layers, so the window of a layer is data. Rows no longer than
    # every window need none.
    window_L = jnp.array(config.windows) if config.windows else None
    rotates_L = jnp.array(config.rotary_layers) if config.rotary_layers else None
    crossed = any(0 < window < columns for window in config.windows)

    def layer(x_BTD, scanned):
        layer_params, window, rotates = scanned
        # Without this constraint, XLA would split activations by width, as the embedding is split,
        # and sum every product over all devices.
        x_BTD = sharding.split_rows(x_BTD, mesh)

        def attend(q_BTHE, k_BTKE, v_BTKE):
            out_BTHE = attention.over_rows(
                q_BTHE,
                k_BTKE,
                v_BTKE,
                window=window if crossed else None,
                softcap=config.attention_softcap,
                windows=config.windows,
                kernel=kernel,
                mesh=mesh,
            )
            return out_BTHE, None

        turn = angles
        if config.windows and config.local_rope_theta:
            turn = jax.tree.map(lambda x, y: jnp.where(window > 0, x, y), local_angles, angles)
        if config.rotary_layers:
            turn = jax.tree.map(lambda x, y: jnp.where(rotates, x, y), turn, _unturned(turn))
        return Block(config).apply({"params": layer_params}, x_BTD, turn, attend)

    if remat != "none":
        layer = jax.checkpoint(layer, prevent_cse=False, policy=REMAT[remat])
    x_BTD = sharding.split_rows(_embed(config, params, tokens_BT), mesh)
    x_BTD, _ = jax.lax.scan(layer, x_BTD, (params["layers"], window_L, rotates_L))
    return _final_norm(config, params, x_BTD)


def for_decoding(
    config: ModelConfig, params: Params, dtype: str, *, untied: bool = False
) -> Params:
    """The decoding layout: `layers` as a list of L dicts of weights, cast.

    A decode step reads each layer's weights once; slicing them out of the stack at every token
    would copy them first. Call this once per rollout, outside the token loop.

    In float32, adapters are merged: a step then computes no product more. Another dtype would round
    away much of the difference that they make (a merged bfloat16 weight moves only if it changes by
    more than 1 part in 512), so there they are applied as the learner applies them.

    untied: gives a tied model a head too, a transposed copy of its embedding. XLA:CPU reads it
      twice as fast for few rows; elsewhere it only costs memory.
    """
    layers = [jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(config.layers)]
    if dtype == "float32":
        layers = [lowrank.merged(layer) for layer in layers]
    params = {**params, "layers": layers}
    if untied and config.tied:
        params["head"] = params["embedding"].T
    return jax.tree.map(lambda x: x.astype(dtype), params)


def extend(
    config: ModelConfig, params: Params, cache: Cache, tokens_BN: jax.Array, start_B: jax.Array
) -> tuple[jax.Array, Cache]:
    """Feeds N tokens per row to contiguous rows of a cache.

    Args:
      params: as `for_decoding` returns them.
      tokens_BN: token n of row b has position start_B[b] + n. Padding of a short row is written
        after it; later tokens overwrite it before any token attends to it.
      start_B: tokens each row already has in the cache.

    Returns: their final hidden_BND and the new cache.
    """
    position_BN = start_B[:, None] + jnp.arange(tokens_BN.shape[1])

    def attend(layer_cache, window, q, k, v):
        return kv.attend_chunk(
            layer_cache, q, k, v, position_BN, window=window, softcap=config.attention_softcap
        )

    return _through_cache(config, params, cache, tokens_BN, position_BN, attend)


def step(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    token_B: jax.Array,
    length_B: jax.Array,
    slot: jax.Array,
    live_B: jax.Array,
) -> tuple[jax.Array, Cache]:
    """Feeds one token per live row to a cache that is a ring.

    Args:
      params: as `for_decoding` returns them.
      length_B: tokens each row already has, which is the position of its token.
      slot: scalar; the slot at which all rows end and the token is written.
      live_B: bool; other rows stay unchanged and their hidden states are meaningless.

    Returns: the final hidden_BD of the tokens and the new cache.
    """
    visible = {  # by window, [B, 1, S]
        window: kv.visible_in_ring(kv.slots_of(cache), slot, length_B, window)
        for window in set(config.layer_windows)
    }

    def attend(layer_cache, window, q, k, v):
        return kv.attend_step(
            layer_cache, q, k, v, slot, visible[window], live_B, softcap=config.attention_softcap
        )

    hidden_B1D, cache = _through_cache(
        config, params, cache, token_B[:, None], length_B[:, None], attend
    )
    return hidden_B1D[:, 0], cache


def _through_cache(config, params, cache, tokens_BN, position_BN, attend):
    """All layers over N tokens per row; they attend by `attend(layer_cache, window, q, k, v)`."""
    angles = rotary_angles(config, position_BN)
    local_angles = rotary_angles(config, position_BN, local=True)
    x_BND = _embed(config, params, tokens_BN)
    layers: list[Any] = []
    rotary_layers = config.rotary_layers or (True,) * config.layers
    for layer_params, layer_cache, window, rotates in zip(
        params["layers"], cache, config.layer_windows, rotary_layers, strict=True
    ):
        turn = local_angles if window else angles
        x_BND, kept = Block(config).apply(
            {"params": layer_params},
            x_BND,
            turn if rotates else _unturned(turn),
            functools.partial(attend, layer_cache, window),
        )
        layers.append(kept)
    return _final_norm(config, params, x_BND), tuple(layers)


def _summed(config: ModelConfig, x: jax.Array) -> jax.Array:
    """The sum of x over the devices that share the model."""
    return jax.lax.psum(x, config.split_over) if config.split_over else x


def _embed(config: ModelConfig, params: Params, tokens_BN: jax.Array) -> jax.Array:
    if config.split_over:
        row_BN = tokens_BN - config.vocab_size * jax.lax.axis_index(config.split_over)
        here_BN = (row_BN >= 0) & (row_BN < config.vocab_size)
        found_BND = params["embedding"].at[row_BN].get(mode="clip")
        x_BND = _summed(config, jnp.where(here_BN[..., None], found_BND, 0))
    else:
        x_BND = params["embedding"][tokens_BN]
    if config.scaled_embedding:
        # Rounded to the params' dtype first, as in the models' training: it matters in bf16.
        x_BND *= jnp.asarray(config.width**0.5, x_BND.dtype)
    if config.embedding_multiplier != 1:
        x_BND *= config.embedding_multiplier
    return x_BND


def _final_norm(config: ModelConfig, params: Params, x_BND: jax.Array) -> jax.Array:
    return rms_norm(x_BND, params["final_norm"], config.norm_epsilon, config.norm_offset)


def head(config: ModelConfig, params: Params) -> Params:
    """The params that `project` reads."""
    name = "embedding" if config.tied else "head"
    return {name: params[name]}


def project(config: ModelConfig, params: Params, hidden_BND: jax.Array) -> jax.Array:
    """Hidden states to logits over the vocabulary, or this device's share of it, float32."""
    if "head" in params:
        w, spec = params["head"], "...D,DV->...V"
    else:  # tied
        w, spec = params["embedding"], "...D,VD->...V"
    logits_BNV = jnp.einsum(spec, hidden_BND, w, preferred_element_type=jnp.float32)
    if config.logits_divisor != 1:
        logits_BNV /= config.logits_divisor
    return attention.soft_cap(logits_BNV, config.logit_softcap)


def logits(config: ModelConfig, params: Params, tokens_BT: jax.Array) -> jax.Array:
    """Logits of whole rows, [B, T, V] float32, without a cache: for tests, tools, comparisons."""
    return project(config, params, hidden(config, params, tokens_BT))
