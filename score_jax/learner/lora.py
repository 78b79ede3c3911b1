"""LoRA: trains low-rank adapters of frozen weights, and nothing else.

    init(key, config, settings)        -> adapters that do not change the model yet
    attach(base, adapters, settings)   -> params that compute base + adapters; copies nothing
    merge(base, adapters, settings)    -> params of plain weights, for export

Adapters are a pytree of their own, by the name of the weight under `layers`, stacked like it:

    {"query": {"down": [L,D,rank], "up": [L,rank,H,E]}, "output": {"down": [L,H,E,rank], ...}, ...}

The base is never copied, donated or saved. A reference of the KL terms is adapters too: `{}` is the
base as it was loaded. So optimizer state, checkpoints and reference have the adapters' size.

The update applies adapters and does not merge them: merging would compute every merged weight and,
in the backward pass, every weight's gradient (SmolLM2-135M's shape, rank 16, 4 rows of 224 tokens,
layers recomputed: 953 MiB of temporaries instead of 184).

We do not use qwix, which adds adapters by intercepting jax functions while a Flax module runs: here
adapters are an argument like any other, and the code is this file and three lines of
`block.linear`.

Left out: dropout, biases, adapters of the embedding and of an untied head.

Source: arXiv 2106.09685; initial values as in the `peft` package.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from score_jax.config.settings import LoraSettings
from score_jax.model import lowrank, transformer
from score_jax.model.families import ModelConfig
from score_jax.model.files import tensor_names
from score_jax.model.files.tensor_names import Place
from score_jax.model.lowrank import LowRank
from score_jax.problem import InputError
from score_jax.runtime import compiles, sharding
from score_jax.structs import Params


def targets(config: ModelConfig, settings: LoraSettings) -> dict[str, Place]:
    """The weights that get adapters, by their name under `layers`.

    Raises: InputError if `settings.targets` matches none, listing those there are, or the rank is
      above what any of them could use.
    """
    matrices = [p for p in tensor_names.places(config) if p.stacked and p.inputs]
    found = [p for p in matrices if re.fullmatch(settings.targets, p.path)]
    if not found:
        raise InputError(
            f"config.model.lora.targets={settings.targets!r} matches no weight that can have an "
            "adapter, so nothing would be trained. It is a regular expression that must match a "
            f"whole name; the names are: {', '.join(p.path for p in matrices)}."
        )
    shapes = [(p.inputs, tensor_names.shape(p, config)) for p in found]
    widest = max(math.prod(part) for n, shape in shapes for part in (shape[:n], shape[n:]))
    if settings.rank > widest:
        raise InputError(
            f"config.model.lora.rank={settings.rank} is above {widest}, the width of the widest "
            "weight that gets an adapter: adapters would be larger than the weights. Lower it; 8 "
            "to 64 is usual. Rank 0 trains all weights."
        )
    return {place.name: place for place in found}


def init(
    key: jax.Array, config: ModelConfig, settings: LoraSettings, mesh: Mesh | None = None
) -> Params:
    """Float32 adapters of a policy that equals the base: `up` is zero, `down` is random.

    mesh: splits each factor's axes as the weight's own axes are split.
    """
    shardings = mesh and jax.tree.map(lambda x: x.sharding, shapes(config, settings, mesh))
    make = functools.partial(_make, config=config, settings=settings)
    return compiles.Compiled(make, compiles.OLDER_EMITTER, out_shardings=shardings)(key)


def shapes(config: ModelConfig, settings: LoraSettings, mesh: sharding.AnyMesh) -> Params:
    """Shapes and shardings of the result of `init` on a mesh."""
    places = targets(config, settings)

    def leaf(path, x):
        name, side = (key.key for key in path)
        inputs, (layers, *axes) = places[name].inputs, transformer.AXES[name]
        # The axes of the weight, and the rank axis, which is not split.
        axes = [*axes[:inputs], None] if side == "down" else [None, *axes[inputs:]]
        where = sharding.of_axes(mesh, (layers, *axes), x.shape)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    make = functools.partial(_make, config=config, settings=settings)
    made = jax.eval_shape(make, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(leaf, made)


def _make(key: jax.Array, *, config: ModelConfig, settings: LoraSettings) -> Params:
    places = targets(config, settings)
    adapters = {}
    keys = jax.random.split(key, len(places))
    for key, (name, place) in zip(keys, places.items(), strict=True):
        shape = tensor_names.shape(place, config)
        inputs, outputs = shape[: place.inputs], shape[place.inputs :]
        bound = math.prod(inputs) ** -0.5
        down_shape = (config.layers, *inputs, settings.rank)
        adapters[name] = {
            "down": jax.random.uniform(key, down_shape, minval=-bound, maxval=bound),
            "up": jnp.zeros((config.layers, settings.rank, *outputs)),
        }
    return adapters


def attach(base: Params, adapters: Params, settings: LoraSettings) -> Params:
    """Params that compute base + adapters; copies no array."""
    layers = dict(base["layers"])
    for name, factors in adapters.items():
        scale = settings.alpha / settings.rank
        layers[name] = LowRank(layers[name], factors["down"], factors["up"], scale)
    return {**base, "layers": layers}


def weights(params: Params, base: Params | None, settings: LoraSettings) -> Params:
    """What the model computes with: the params themselves, or the base with them as adapters."""
    return params if base is None else attach(base, params, settings)


def merge(base: Params, adapters: Params, settings: LoraSettings) -> Params:
    """Plain params that compute the same up to rounding; copies no weight without an adapter."""
    params = attach(base, adapters, settings)
    changed = {name: params["layers"][name] for name in adapters}
    return {**base, "layers": {**base["layers"], **jax.jit(jax.vmap(lowrank.merged))(changed)}}
