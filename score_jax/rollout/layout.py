"""Weights in the layout that decoding reads, made outside of the programs that decode.

    laid_out(params, settings=..., mesh=...)              what does not change is shared, not copied
    laid_out(params, settings=..., mesh=..., frees=True)  params are used up

One small program takes one layer out of one stacked weight. So it compiles at once, and where the
stacks are freed on the way, only one weight is in memory twice.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from score_jax.model import transformer
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles, sharding
from score_jax.structs import Params


def laid_out(
    params: Params,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    frees: bool = False,
    call: Callable[..., Any] = compiles.call,
) -> Params:
    """The weights as `transformer.for_decoding` returns them; themselves if they are so already.

    Args:
      params: as in transformer.py, adapters beside the weights included.
      frees: deletes each array of params once its copy is there; the others are in the result.
      call: calls a program; another one may plan it, where params are shapes.
    """
    if transformer.is_for_decoding(params):
        return params
    s = settings
    leaves, tree = jax.tree.flatten(params)
    wanted = _wanted(s, tree, tuple((x.shape, x.dtype) for x in leaves))
    where = sharding.decoding_shardings(mesh, transformer.AXES, wanted) if mesh else wanted

    def place(x, shards, program, **how) -> Params:
        """program(x) on the devices of the mesh."""
        leaves = tuple(jax.tree.leaves(shards)) if mesh else None
        return call(program, x, dtype=s.dtype, shards=leaves, **how)

    made: Params = {"layers": [{} for _ in range(s.model.layers)]}
    for name, stacked in params["layers"].items():
        for i, layer in enumerate(made["layers"]):
            layer[name] = place(stacked, where["layers"][0][name], _layer, i=np.int32(i))
        if frees:
            _free(stacked, made["layers"])
    if s.untied and s.model.tied:
        made["head"] = place(params["embedding"], where["head"], _transposed)
    for name in [name for name in params if name != "layers"]:
        x, shards = params[name], where[name]
        split = getattr(x, "sharding", None)
        here = mesh and split and split.is_equivalent_to(shards, x.ndim)
        same = not mesh or here
        made[name] = x if same and x.dtype == s.dtype else place(x, shards, _cast)
        if frees and made[name] is not x:
            _free(x, made)
    return made


@functools.lru_cache(maxsize=8)
def _wanted(s: EpisodeSettings, tree: Any, leaves: tuple[tuple[Any, Any], ...]) -> Params:
    """Shapes of the result, for params of these shapes: not traced again at every rollout."""
    params = tree.unflatten(jax.ShapeDtypeStruct(*leaf) for leaf in leaves)
    make = functools.partial(transformer.for_decoding, s.model, dtype=s.dtype, untied=s.untied)
    return jax.eval_shape(make, params)


def _free(source: Params, copies: Params) -> None:
    jax.block_until_ready(copies)
    for x in jax.tree.leaves(source):
        x.delete()


def _program(work):
    """work(x, i=..., dtype=...), compiled, its results split as `shards` says."""

    def compiled(x, *, dtype: str, shards: tuple[NamedSharding, ...] | None, i=None):
        leaves, tree = jax.tree.flatten(work(x, i, dtype))
        if shards:
            leaves = [*map(jax.lax.with_sharding_constraint, leaves, shards)]
        return jax.tree.unflatten(tree, leaves)

    compiled.__name__ = work.__name__.strip("_")  # in messages about compiling
    return compiles.Compiled(compiled, compiles.OLDER_EMITTER, static_argnames=("dtype", "shards"))


@_program
def _layer(stacked: Params, i, dtype: str) -> Params:
    return transformer.layer_for_decoding(stacked, i, dtype)


@_program
def _cast(x: jax.Array, _, dtype: str) -> jax.Array:
    return x.astype(dtype)


@_program
def _transposed(x: jax.Array, _, dtype: str) -> jax.Array:
    return x.T.astype(dtype)
