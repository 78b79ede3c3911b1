"""Feeds prompts, each once: the caches that rows start from.

One program of one layer serves all layers: as a part of the decode loop's program they would be
compiled one by one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from score_jax.rollout.programs import BY_DEVICE, BY_ROW, by_shard
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles
from score_jax.structs import Params


def prefill(
    params: Params,
    tokens_QP: jax.Array | np.ndarray,
    length_Q: jax.Array | np.ndarray,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    call: Callable[..., Any] = compiles.call,
):
    """Feeds every prompt: (cache of contiguous rows, hidden_QD of last tokens, length_Q).

    call: as of `layout.laid_out`.
    """
    model = settings.model
    how: dict[str, Any] = {"settings": _of_prompts(settings), "mesh": mesh}
    x_QPD = call(_embedded, {"embedding": params["embedding"]}, tokens_QP, **how)
    cache = []
    for number, layer in enumerate(params["layers"]):
        of_layer = {
            "window": model.layer_windows[number],
            "rotates": transformer.rotations(model)[number],
        }
        x_QPD, kept = call(_fed, {"layers": [layer]}, x_QPD, **of_layer, **how)
        cache.append(kv.numbered(kept, number))
    norm = {"final_norm": params["final_norm"]}
    hidden_QD, length_Q = call(_last, norm, x_QPD, length_Q, **how)
    return tuple(cache), hidden_QD, length_Q


def _of_prompts(settings: EpisodeSettings) -> EpisodeSettings:
    """What feeding prompts depends on, and nothing else: so all kinds of rollouts share it."""
    return EpisodeSettings(
        model=settings.model,
        policy=Policy(),
        attempts=1,
        samples=1,
        max_attempt_tokens=1,
        instruction=(),
        turn_end=(),
        end_ids=(),
        pad_id=0,
        dtype=settings.dtype,
        cache_layout=settings.cache_layout,
    )


def _part_of_prefill(work, out):
    """Compiles work(params, *by_row, settings=…, …) for every shard."""

    def compiled(params, *by_row, settings: EpisodeSettings, mesh: Mesh | None, **how):
        specs = [BY_ROW] * len(by_row)
        some = functools.partial(work, **how)
        return by_shard(some, params, by_row, specs, out, settings=settings, mesh=mesh)

    compiled.__name__ = f"prompts_{work.__name__.strip('_')}"  # in messages about compiling
    static = ("settings", "mesh", "window", "rotates")
    return compiles.Compiled(compiled, compiles.OLDER_EMITTER, static_argnames=static)


@functools.partial(_part_of_prefill, out=BY_ROW)
def _embedded(params, tokens_QP, *, settings: EpisodeSettings):
    return transformer.embed(settings.model, params, tokens_QP)


@functools.partial(_part_of_prefill, out=(BY_ROW, BY_DEVICE))
def _fed(params, x_QPD, *, settings: EpisodeSettings, window: int, rotates: bool):
    s, (layer,), (problems, columns, _) = settings, params["layers"], x_QPD.shape
    (cache,) = kv.empty(s.model, problems, columns, s.dtype, s.cache_layout, layers=1)
    return transformer.feed_layer(s.model, layer, cache, x_QPD, window=window, rotates=rotates)


@functools.partial(_part_of_prefill, out=BY_ROW)
def _last(params, x_QPD, length_Q, *, settings: EpisodeSettings):
    last_QD = x_QPD[jnp.arange(len(length_Q)), length_Q - 1]
    return transformer.final_norm(settings.model, params, last_QD), length_Q
