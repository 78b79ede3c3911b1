"""TPU chips to compile for that this machine does not have."""

import os

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from score_jax.problem import InputError


def devices(name: str, slices: int = 1) -> list[jax.Device]:
    """The chips of a TPU topology, such as "v5e:2x2", or of several such slices.

    Raises: InputError if there is no TPU compiler, or no such topology.
    """
    # Without queries to the cloud; and several processes may compile at once, as nothing is run.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")  # without one it logs errors
    try:
        several = {"num_slices": slices} if slices > 1 else {}
        return list(topologies.get_topology_desc(name, platform="tpu", **several).devices)
    except Exception as error:  # the plugin's exceptions differ by version
        raise InputError(
            f"--topology={name}: cannot compile for this topology: {error}. The TPU compiler comes "
            "with pip install '.[tpu]' and runs without a TPU. An example of a topology: v5e:2x2."
        ) from error


def one_chip(name: str) -> SingleDeviceSharding:
    """One chip of a topology. Raises: InputError as `devices`."""
    return SingleDeviceSharding(devices(name)[0])
