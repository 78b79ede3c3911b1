"""Chips that are not here, to compile for."""

import os

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from score_jax.problem import InputError


def devices(name: str) -> list[jax.Device]:
    """The chips of a TPU topology, such as "v5e:2x2".

    Raises: InputError if there is no TPU compiler, or no such topology.
    """
    # Nothing is asked of the cloud; and where nothing is run, several may compile side by side.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")  # it would complain of none
    try:
        return list(topologies.get_topology_desc(name, platform="tpu").devices)
    except Exception as error:  # the plugin's own kinds, by version
        raise InputError(
            f"--topology={name} cannot be compiled for: {error}. The TPU compiler comes with "
            "pip install '.[tpu]' and runs without a TPU; a topology is such as v5e:2x2."
        ) from error


def one_chip(name: str) -> SingleDeviceSharding:
    """One chip of a topology. Raises: InputError as `devices`."""
    return SingleDeviceSharding(devices(name)[0])
