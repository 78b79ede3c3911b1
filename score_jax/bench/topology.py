"""A chip that is not here, to compile for."""

import os

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from score_jax.problem import InputError


def one_chip(name: str) -> SingleDeviceSharding:
    """One chip of a TPU topology, such as "v5e:2x2".

    Raises: InputError if there is no TPU compiler, or no such topology.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        devices = topologies.get_topology_desc(name, platform="tpu").devices
    except Exception as error:  # the plugin's own kinds, by version
        raise InputError(
            f"--topology={name} cannot be compiled for: {error}. The TPU compiler comes with "
            "pip install '.[tpu]' and runs without a TPU; a topology is such as v5e:2x2."
        ) from error
    return jax.sharding.SingleDeviceSharding(devices[0])
