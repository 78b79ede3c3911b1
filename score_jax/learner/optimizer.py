"""Optimizer and learning rate: optax, with the rate outside so that no new stage recompiles."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from score_jax.config.settings import OptimizerSettings
from score_jax.runtime import compiles, sharding
from score_jax.structs import Params

# Scales a clipped gradient: settings -> transformations. Adafactor has no momentum here and no
# relative step sizes. Sources: Adam, arXiv 1412.6980; AdamW, 1711.05101; Adafactor, 1804.04235,
# whose second moments take the memory of a row and a column per matrix.
OPTIMIZERS: dict[str, Callable[[OptimizerSettings], list[optax.GradientTransformation]]] = {
    "adam": lambda s: [optax.scale_by_adam(s.beta1, s.beta2, s.epsilon)],
    "adafactor": lambda s: [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)],
}

# How much of the decay is done, by the share of the steps after warm-up that are done.
SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "constant": jnp.zeros_like,
    "linear": lambda done: done,
    "cosine": lambda done: 0.5 * (1 - jnp.cos(jnp.pi * done)),
}

# Parts of a layer, by the names of their weights and of those weights' biases.
_PARTS = {"attention": ("query", "key", "value", "output"), "mlp": ("gate", "up", "down")}


def make(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Gradient to update direction; the caller multiplies by minus the learning rate."""
    steps = []
    if settings.clip_norm > 0:
        steps.append(optax.clip_by_global_norm(settings.clip_norm))
    steps += OPTIMIZERS[settings.name](settings)
    if settings.weight_decay > 0:
        steps.append(optax.add_decayed_weights(settings.weight_decay))
    return optax.chain(*steps)


def fresh(params: Params, settings: OptimizerSettings) -> Any:
    """The optimizer's state before the first update, by one program; split as `shapes` says."""
    first = jax.tree.leaves(params)[0]
    mesh = None if isinstance(first, jax.core.Tracer) else getattr(first.sharding, "mesh", None)
    planned = jax.tree.leaves(shapes(settings, params, mesh)) if mesh else []
    return _fresh(params, settings=settings, shards=tuple(x.sharding for x in planned))


@functools.partial(
    compiles.Compiled, options=compiles.OLDER_EMITTER, static_argnames=("settings", "shards")
)
def _fresh(params, *, settings: OptimizerSettings, shards: tuple[jax.sharding.Sharding, ...]):
    leaves, tree = jax.tree.flatten(make(settings).init(params))
    if shards:
        leaves = [*map(jax.lax.with_sharding_constraint, leaves, shards)]
    return jax.tree.unflatten(tree, leaves)


def learning_rate(step: jax.Array, coefficients) -> jax.Array:
    """The rate at a step of a stage: linear warm-up, then decay to `final_fraction` of the peak.

    Args:
      step: steps already taken in this stage.
      coefficients: reads `learning_rate`, `warmup_steps`, `steps`, `final_fraction`, and
        `schedule`: 1 for the stage's schedule, 0 for the others. Arithmetic, not branches, so that
        stages with different schedules share one compiled step.
    """
    c = coefficients
    warm = jnp.minimum(1.0, (step + 1) / jnp.maximum(c.warmup_steps, 1))
    done = (step - c.warmup_steps) / jnp.maximum(c.steps - c.warmup_steps, 1)
    done = jnp.clip(done, 0.0, 1.0)
    decay = sum(c.schedule[name] * decay(done) for name, decay in SCHEDULES.items())
    return c.learning_rate * warm * (1.0 - (1.0 - c.final_fraction) * decay)


def norms(name: str, tree: Params) -> dict[str, jax.Array]:
    """Euclidean norms of params, or of what has their structure, by group: `NAME/GROUP`.

    Groups: embedding, head, attention and mlp (matrices and biases), norms; with LoRA
    attention_adapters and mlp_adapters.
    """
    squares: dict[str, Any] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        group = _group(_keys(path))
        squares[group] = squares.get(group, 0.0) + jnp.sum(x.astype(jnp.float32) ** 2)
    return {f"{name}/{group}": jnp.sqrt(total) for group, total in squares.items()}


def shapes(settings: OptimizerSettings, params: Params, mesh: sharding.AnyMesh):
    """Shapes and shardings of the optimizer's state for params of these shapes.

    Moments have the params' shardings; what has another shape is copied to every device.
    """
    known = {_keys(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}

    def leaf(path, x):
        like: Any = known.get(_keys(path))
        same = like is not None and like.shape == x.shape
        where = like.sharding if same else sharding.replicated(mesh)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    state = jax.eval_shape(make(settings).init, params)
    return jax.tree_util.tree_map_with_path(leaf, state)


def _keys(path) -> tuple[str, ...]:
    """The names of a path that are those of params: dict keys."""
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _group(names: tuple[str, ...]) -> str:
    """The group of a weight, by its path in the params; adapters stand under the weight's name."""
    weight, of_base = names[0], names[0] in ("layers", "embedding", "head", "final_norm")
    if weight == "layers":
        weight = names[1]
    if "norm" in weight:
        return "norms"
    part = weight.split("_")[0]
    group = next((name for name, parts in _PARTS.items() if part in parts), part)
    return group if of_base else f"{group}_adapters"
