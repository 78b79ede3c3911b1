"""The device mesh, and the one table from logical axis names to mesh axes.

data     splits the rows of the batch; parameters are copied
fsdp     splits the rows of the batch too, and the parameters
tensor   splits heads, MLP width and vocabulary

Processes, and slices of TPUs, differ along `data` first: that axis communicates least, once per
update.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from score_jax.problem import InputError

BATCH_AXES = ("data", "fsdp")
AnyMesh = Mesh | AbstractMesh  # AbstractMesh: sizes without devices, where no array is placed

# Logical axis of an array -> mesh axis. The logical axes of params are in transformer.AXES.
RULES: dict[str, str | tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


def make_mesh(
    data: int,
    fsdp: int,
    tensor: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    slices: int = 0,
) -> Mesh:
    """A mesh over all devices, or over those given; one size may be -1: the remaining devices.

    slices: groups of devices, in their order, that only a network joins; 0: as TPUs say of
      themselves, and one of other devices.
    Raises: InputError if the sizes do not cover the devices, or if more than rows would be split
    between slices.
    """
    found = list(jax.devices() if devices is None else devices)
    sizes = axis_sizes(data, fsdp, tensor, len(found))
    laid_out = _laid_out(_of_slices(found, slices), *sizes.values())
    return Mesh(laid_out, tuple(sizes), axis_types=(AxisType.Auto,) * 3)


def axis_sizes(data: int, fsdp: int, tensor: int, devices: int) -> dict[str, int]:
    """The sizes of a mesh over `devices` devices. Raises: InputError if it does not cover them."""
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
        near = nearest_sizes(fsdp, tensor, devices)
        instead = " ".join(f"--config.mesh.{name}={size}" for name, size in near.items())
        raise InputError(
            f"mesh {shape} does not cover {devices} devices: the product of the sizes must be "
            f"{devices}. Set one of config.mesh.data, .fsdp, .tensor to -1 to take what is left, "
            f"or all three: {instead}"
        )
    if free:
        sizes[free[0]] = devices // fixed
    return sizes


def nearest_sizes(fsdp: int, tensor: int, devices: int) -> dict[str, int]:
    """The sizes of a mesh over `devices` devices whose `fsdp` and `tensor` divide those given.

    Sizes that are not positive count as all devices.
    """
    split = math.gcd(tensor, devices) if tensor > 0 else 1
    left = devices // split
    shared = math.gcd(fsdp, left) if fsdp > 0 else left
    return {"data": left // shared, "fsdp": shared, "tensor": split}


def _of_slices(devices: Sequence[Any], slices: int) -> list[list[Any]]:
    """The devices of each slice."""
    if slices:
        if len(devices) % slices:
            raise InputError(
                f"config.mesh.slices={slices} does not divide {len(devices)} devices: every slice "
                "has as many as the others."
            )
        return [list(some) for some in np.split(np.asarray(devices, object), slices)]
    # On other platforms jax calls hosts that only a network joins "slices" too.
    tpu = devices[0].platform == "tpu"
    found: dict[int, list[Any]] = {}
    for device in devices:
        found.setdefault(getattr(device, "slice_index", 0) if tpu else 0, []).append(device)
    return [found[index] for index in sorted(found)]


def _laid_out(slices: Sequence[list[Any]], data: int, fsdp: int, tensor: int) -> np.ndarray:
    """The devices as [data, fsdp, tensor]: neighbours along `tensor`, slices along `data`."""
    if data % len(slices):
        raise InputError(
            f"config.mesh.data={data} cannot be split over {len(slices)} slices of "
            f"{len(slices[0])} devices: only rows may be split between slices. Set it to a "
            f"multiple of {len(slices)}."
        )
    shape = (data // len(slices), fsdp, tensor)
    return np.concatenate(
        [
            mesh_utils.create_device_mesh(shape, some, allow_split_physical_axes=True)
            for some in slices
        ]
    )


def batch_size(mesh: AnyMesh) -> int:
    """The number of devices over which the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def of_axes(mesh: AnyMesh, axes: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of an array with these logical axes.

    Raises: InputError if a dimension does not divide by the mesh axis it is split over; ValueError
    if two dimensions would be split over the same mesh axis.
    """
    spec: list = []
    taken: dict[str, str | None] = {}  # mesh axis -> the logical axis split over it
    for name, size in zip(axes, shape, strict=True):
        target = RULES.get(name) if name else None
        parts = int(np.prod([mesh.shape[a] for a in _tuple(target)]))
        if size % parts:
            raise InputError(
                f"an axis '{name}' of {size} cannot be split over {parts} devices ({target}): each "
                f"must hold the same share. Choose a config.mesh.{_tuple(target)[-1]} that divides "
                f"{size}."
            )
        for axis in _tuple(target):
            if axis in taken:
                raise ValueError(
                    f"an array with the axes {axes} and sizes {shape} would be split over the mesh "
                    f"axis '{axis}' twice, by '{taken[axis]}' and by '{name}'. Give one of them "
                    "another name, or another mesh axis in sharding.RULES."
                )
            taken[axis] = name
        spec.append(target if parts > 1 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def params_shardings(mesh: AnyMesh, axes: dict[str, tuple[str | None, ...]], params):
    """The sharding of every leaf of a params-shaped tree, by the last name of its path."""

    def leaf(path, x):
        return of_axes(mesh, axes[path[-1].key], x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


def decoding_shardings(mesh: Mesh, axes: dict[str, tuple[str | None, ...]], params):
    """As params_shardings, for decoding: layers are not stacked, and only `tensor` splits weights.

    If weights were split over `fsdp`, a decode step would gather them at every token. The factors
    `down` and `up` of a weight are split as its inputs and outputs are.
    """

    def leaf(path, x):
        *_, name = (key.key for key in path if isinstance(key, jax.tree_util.DictKey))
        factor, names = getattr(path[-1], "name", ""), axes[name]
        if factor == "down":
            names = (*names[1 : x.ndim], None)
        elif factor == "up":
            names = (None, *names[1 - x.ndim :])
        names = names[-x.ndim :]
        split = tuple(name if name and RULES.get(name) == "tensor" else None for name in names)
        return of_axes(mesh, split, x.shape)

    return jax.tree_util.tree_map_with_path(leaf, params)


def rows(mesh: Mesh) -> NamedSharding:
    """Arrays whose first axis is the batch. On one device as XLA describes what programs return."""
    return NamedSharding(mesh, PartitionSpec(*[BATCH_AXES] * (batch_size(mesh) > 1)))


def split_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Makes XLA split x, whose first axis is the batch, by rows inside a program for the mesh."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, rows(mesh))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(value: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host's array on the mesh. Every process holds all of it and copies to its own devices."""
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def on_mesh(mesh: Mesh, tree):
    """The tree with every leaf on the mesh; leaves on one device are copied to all devices."""

    def put(x):
        on_it = isinstance(x.sharding, NamedSharding) and x.sharding.mesh == mesh
        return x if on_it else place(np.asarray(x), replicated(mesh))

    return jax.tree.map(put, tree)


def _tuple(target) -> tuple[str, ...]:
    if target is None:
        return ()
    return target if isinstance(target, tuple) else (target,)
