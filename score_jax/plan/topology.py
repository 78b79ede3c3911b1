"""The devices of a TPU slice that is not here, for its real compiler."""

import os

import jax
from jax.experimental import topologies

from score_jax.problem import InputError


def devices(topology: str) -> list[jax.Device]:
    """The devices of a topology such as "v5e:2x2": programs can be compiled for them, not run.

    Raises: InputError if there is no TPU compiler, or no such topology.
    """
    # Nothing is asked of the cloud, and nobody is kept from the TPU that there may be.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:  # the plugin's own kinds, by version
        raise InputError(
            f"--topology={topology} cannot be compiled for: {error}. The TPU compiler comes with "
            "pip install '.[tpu]' and runs without a TPU; a topology is such as v5e:2x2."
        ) from error
