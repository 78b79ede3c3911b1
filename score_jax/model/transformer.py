"""One decoder-only transformer for every family, as pure functions of (config, params).

block.py computes one layer; its attention is an argument.

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
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_jax.model import attention, lowrank
from score_jax.model import cache as kv
from score_jax.model.block import Block, rms_norm, rotary_angles, summed, unturned
from score_jax.model.cache import Cache
from score_jax.model.families import ModelConfig
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
    params: with stacked layers, or as `for_decoding` returns them; then call it outside of jit.
    remat: a key of REMAT; what the backward pass recomputes of a layer's forward pass.
    kernel: a key of attention.ATTENTIONS.
    mesh: over which rows and params are split.
    """
    columns = tokens_BT.shape[1]
    position_1T = jnp.arange(columns)[None]
    turns: dict[str, Any] = {
        "angles": rotary_angles(config, position_1T, columns=columns),
        "local_angles": rotary_angles(config, position_1T, local=True, columns=columns),
    }
    # A scan has one program for all layers, so the window of a layer is data. Rows no longer than
    # every window need none.
    window_L = jnp.array(config.windows) if config.windows else None
    rotates_L = jnp.array(config.rotary_layers) if config.rotary_layers else None
    how: dict[str, Any] = {"config": config, "kernel": kernel, "mesh": mesh}

    def layer(x_BTD, scanned):
        return _layer_of_rows(x_BTD, scanned, **turns, **how), None

    if remat != "none":
        layer = jax.checkpoint(layer, prevent_cse=False, policy=REMAT[remat])
    split = mesh if mesh and not is_for_decoding(params) else None
    x_BTD = sharding.split_rows(embed(config, params, tokens_BT, mesh=split), mesh)
    if is_for_decoding(params):  # outside of jit, one program serves all layers
        for i, layer_params in enumerate(params["layers"]):
            window, rotates = (x_L if x_L is None else x_L[i] for x_L in (window_L, rotates_L))
            x_BTD = _one_layer(x_BTD, (layer_params, window, rotates), **turns, **how)
    else:
        x_BTD, _ = jax.lax.scan(layer, x_BTD, (params["layers"], window_L, rotates_L))
    return final_norm(config, params, x_BTD)


def _layer_of_rows(x_BTD, scanned, *, angles, local_angles, config: ModelConfig, kernel, mesh):
    """A layer over whole rows. scanned: its params, its window, and whether it rotates."""
    layer_params, window, rotates = scanned
    # Without this constraint, XLA would split activations by width, as the embedding is split, and
    # sum every product over all devices.
    x_BTD = sharding.split_rows(x_BTD, mesh)
    crossed = any(0 < window < x_BTD.shape[1] for window in config.windows)

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
        turn = jax.tree.map(lambda x, y: jnp.where(rotates, x, y), turn, unturned(turn))
    return Block(config).apply({"params": layer_params}, x_BTD, turn, attend)[0]


_one_layer = jax.jit(_layer_of_rows, static_argnames=("config", "kernel", "mesh"))


def for_decoding(
    config: ModelConfig, params: Params, dtype: str, *, untied: bool = False
) -> Params:
    """The decoding layout: `layers` as a list of L dicts of weights, cast.

    A decode step reads each layer's weights once; slicing them out of the stack at every token
    would copy them first. rollout/layout.py makes it by small programs, once per rollout. (Compiled
    into the rollout, XLA would make a program of every array of every layer.)

    untied: gives a tied model a head too, a transposed copy of its embedding. XLA:CPU reads it
      twice as fast for few rows; elsewhere it only costs memory.
    """
    layers = [
        {name: layer_for_decoding(w, i, dtype) for name, w in params["layers"].items()}
        for i in range(config.layers)
    ]
    others = {name: w for name, w in params.items() if name != "layers"}
    if untied and config.tied:
        others["head"] = params["embedding"].T
    return {"layers": layers, **jax.tree.map(lambda x: x.astype(dtype), others)}


def is_for_decoding(params: Params) -> bool:
    """Whether params are in the decoding layout already."""
    return isinstance(params["layers"], list)


def layer_for_decoding(stacked: Params, i: int | jax.Array, dtype: str) -> Params:
    """Layer i of one stacked weight, cast.

    In float32, adapters are merged: a step then computes no product more. Another dtype would round
    away much of the difference that they make (a merged bfloat16 weight moves only if it changes by
    more than 1 part in 512), so there they are applied as the learner applies them.
    """
    layer = jax.tree.map(lambda x: x[i], stacked)
    layer = lowrank.merged(layer) if dtype == "float32" else layer
    return jax.tree.map(lambda x: x.astype(dtype), layer)


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

    where = dict.fromkeys(config.layer_windows, (position_BN,))
    return _through_cache(config, params, cache, tokens_BN, position_BN, kv.attend_chunk, where)


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
    where = {  # by window
        window: (slot, kv.visible_in_ring(kv.slots_of(cache), slot, length_B, window), live_B)
        for window in set(config.layer_windows)
    }
    hidden_B1D, cache = _through_cache(
        config, params, cache, token_B[:, None], length_B[:, None], kv.attend_step, where
    )
    return hidden_B1D[:, 0], cache


def feed_layer(
    config: ModelConfig,
    layer_params: Params,
    layer_cache: kv.LayerCache,
    x_BSD: jax.Array,
    *,
    window: int,
    rotates: bool,
) -> tuple[jax.Array, kv.LayerCache]:
    """One layer of `extend`, between `embed` and `final_norm`, for S tokens that fill the cache.

    window, rotates: the layer's, of `layer_windows` and `rotations`.
    """
    position_BS = jnp.broadcast_to(jnp.arange(x_BSD.shape[1]), x_BSD.shape[:2])
    turn = unturned(rotary_angles(config, position_BS))
    if rotates:
        turn = rotary_angles(config, position_BS, local=window > 0)
    how: dict[str, Any] = {"config": config, "attend": kv.attend_prompt, "window": window}
    return _layer_with_cache(layer_params, layer_cache, 0, x_BSD, turn, (), **how)


def rotations(config: ModelConfig) -> tuple[bool, ...]:
    """Whether each layer rotates queries and keys."""
    return config.rotary_layers or (True,) * config.layers


def _through_cache(config, params, cache, tokens_BN, position_BN, attend, where):
    """All layers over N tokens per row.

    attend: of cache.py. where: what else it is called with, by the layer's window.
    """
    angles = rotary_angles(config, position_BN)
    local_angles = rotary_angles(config, position_BN, local=True)
    x_BND = embed(config, params, tokens_BN)
    layers: list[Any] = []
    for number, (layer_params, layer_cache, window, rotates) in enumerate(
        zip(params["layers"], cache, config.layer_windows, rotations(config), strict=True)
    ):
        turn = local_angles if window else angles
        x_BND, kept = _layer_with_cache(
            layer_params,
            kv.numbered(layer_cache, 0),
            number,
            x_BND,
            turn if rotates else unturned(turn),
            where[window],
            config=config,
            attend=attend,
            window=window,
        )
        layers.append(kv.numbered(kept, number))
    return final_norm(config, params, x_BND), tuple(layers)


@functools.partial(jax.jit, static_argnames=("config", "attend", "window"), inline=True)
def _layer_with_cache(
    layer_params, layer_cache, number, x_BND, turn, where, *, config: ModelConfig, attend, window
):
    """One layer over N tokens per row. Within a program, layers that are alike are traced once.

    layer_cache: with number 0, so that all layers have one type; `number` is the layer's.
    """
    layer_cache = kv.numbered(layer_cache, number)
    how = {} if attend is kv.attend_step else {"window": window}

    def attend_here(q, k, v):
        return attend(layer_cache, q, k, v, *where, softcap=config.attention_softcap, **how)

    fed: Any = Block(config).apply({"params": layer_params}, x_BND, turn, attend_here)
    x_BND, kept = fed
    return x_BND, kv.numbered(kept, 0)


def embed(
    config: ModelConfig, params: Params, tokens_BN: jax.Array, *, mesh: Mesh | None = None
) -> jax.Array:
    """What enters the first layer. mesh: over which rows and params are split as in training."""
    if mesh and sharding.batch_size(mesh) > 1:  # XLA refuses a part of one device
        x_BND = _looked_up(params["embedding"], tokens_BN, mesh)
    elif config.split_over:
        row_BN = tokens_BN - config.vocab_size * jax.lax.axis_index(config.split_over)
        here_BN = (row_BN >= 0) & (row_BN < config.vocab_size)
        found_BND = params["embedding"].at[row_BN].get(mode="clip")
        x_BND = summed(config, jnp.where(here_BN[..., None], found_BND, 0))
    else:
        x_BND = params["embedding"][tokens_BN]
    if config.scaled_embedding:
        # Rounded to the params' dtype first, as in the models' training: it matters in bf16.
        x_BND *= jnp.asarray(config.width**0.5, x_BND.dtype)
    if config.embedding_multiplier != 1:
        x_BND *= config.embedding_multiplier
    return x_BND


def _looked_up(embedding_VD: jax.Array, tokens_BN: jax.Array, mesh: Mesh) -> jax.Array:
    """The rows of an embedding whose width is split over `fsdp`.

    Each device reads its part of the width for all rows of its `fsdp` neighbours. XLA alone sums
    the gradient of the whole embedding over all devices, and may gather rows over `data`.
    """

    def on_device(embedding_VW, tokens_RN):
        neighbours_RN = jax.lax.all_gather(tokens_RN, "fsdp", tiled=True)
        x_RNW = embedding_VW[neighbours_RN]
        return jax.lax.all_to_all(x_RNW, "fsdp", split_axis=0, concat_axis=2, tiled=True)

    # XLA:CPU (jax 0.10) aborts on the sum of a gradient in bfloat16 that this makes.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    wide = jnp.float32 if on_cpu else embedding_VD.dtype
    rows = jax.P(sharding.BATCH_AXES)
    x_BND = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(jax.P(None, "fsdp"), rows),
        out_specs=rows,
        axis_names=set(sharding.BATCH_AXES),
        check_vma=False,  # what the neighbours read is not marked as the same on all of them
    )(embedding_VD.astype(wide), tokens_BN)
    return x_BND.astype(embedding_VD.dtype)


def final_norm(config: ModelConfig, params: Params, x_BND: jax.Array) -> jax.Array:
    """What leaves the last layer, as hidden states."""
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
