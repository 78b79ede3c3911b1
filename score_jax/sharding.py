"""The device mesh, and the one table from logical axis names to its axes.

data     rows of the batch; parameters are copies
fsdp     rows of the batch too, and parameters are split over it
tensor   heads, MLP width and vocabulary are split over it
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from score_jax.problem import InputError

BATCH_AXES = ("data", "fsdp")

# Logical axis of an array -> mesh axis. Arrays say their logical axes where they are described.
RULES: dict[str, str | tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over all devices; one of the sizes may be -1 and takes what is left."""
    devices = jax.device_count()
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    free = [name for name, size in sizes.items() if size == -1]
    given = [size for size in sizes.values() if size != -1]
    fixed = int(np.prod(given))
    if (
        len(free) > 1
        or min(given, default=1) < 1
        or devices % fixed
        or (not free and fixed != devices)
    ):
        shape = " x ".join(f"{name}={size}" for name, size in sizes.items())
        raise InputError(
            f"mesh {shape} does not cover {devices} devices: the product of the sizes must be "
            f"{devices}. Set one of config.mesh.data, .fsdp, .tensor to -1 to take what is left."
        )
    if free:
        sizes[free[0]] = devices // fixed
    axis_types = (AxisType.Auto,) * 3
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=axis_types)


def batch_size(mesh: Mesh) -> int:
    """Over how many devices the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def of_axes(mesh: Mesh, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of an array with these logical axes.

    Raises: InputError if a dimension does not divide by the mesh axis it is split over.
    """
    spec: list = []
    for name, size in zip(axes, shape, strict=True):
        target = RULES.get(name) if name else None
        parts = int(np.prod([mesh.shape[a] for a in _tuple(target)]))
        if size % parts:
            raise InputError(
                f"an axis '{name}' of {size} cannot be split over {parts} devices ({target}): each "
                f"must hold the same share. Choose a config.mesh.{_tuple(target)[-1]} that divides "
                f"{size}."
            )
        spec.append(target if parts > 1 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def params_shardings(mesh: Mesh, axes: dict[str, tuple[str | None, ...]], params):
    """The sharding of every leaf of a params-shaped tree, by the last name of its path."""

    def leaf(path, x):
        return of_axes(mesh, axes[path[-1].key], x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


def decoding_shardings(mesh: Mesh, axes: dict[str, tuple[str | None, ...]], params):
    """As params_shardings, for decoding, where layers are not stacked: split over `tensor` alone.

    A decode step that had to gather the rest first would wait for it at every token.
    """

    def leaf(path, x):
        names = axes[path[-1].key][-x.ndim :]
        split = tuple(name if name and RULES.get(name) == "tensor" else None for name in names)
        return of_axes(mesh, split, x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


def rows(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def split_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """x, whose first axis is the batch, as XLA must lay it out inside a program for the mesh."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, rows(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_mesh(mesh: Mesh, tree):
    """The tree with every leaf on the mesh: scalars made on one device are copied to all."""

    def place(x):
        on_it = isinstance(x.sharding, NamedSharding) and x.sharding.mesh == mesh
        return x if on_it else jax.device_put(x, replicated(mesh))

    return jax.tree.map(place, tree)


def _tuple(target) -> tuple[str, ...]:
    if target is None:
        return ()
    return target if isinstance(target, tuple) else (target,)
