"""Peak speeds of devices: the bounds of a step, and what measured speeds are shares of.

Sources: Google Cloud's documentation (cloud.google.com/tpu/docs), a page for each kind of TPU;
NVIDIA's data sheets of the A100, H100 and H200, for dense matrices.
"""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Peak:
    """Of one device."""

    flops: float  # per second, of bfloat16 matrix products
    bytes_per_sec: float  # from and to its memory


# By prefix of jax's device kind.
PEAKS = {
    "TPU v4": Peak(275e12, 1228e9),
    "TPU v5 lite": Peak(197e12, 819e9),
    "TPU v5e": Peak(197e12, 819e9),
    "TPU v5": Peak(459e12, 2765e9),  # v5p
    "TPU v6": Peak(918e12, 1640e9),  # v6e
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1555e9),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2039e9),
    "NVIDIA H100 80GB HBM3": Peak(989e12, 3350e9),
    "NVIDIA H200": Peak(989e12, 4800e9),
}


def here() -> Peak | None:
    """The peak of this machine's devices; None if it is not known, as for CPUs."""
    kind = jax.devices()[0].device_kind
    return next((peak for name, peak in PEAKS.items() if kind.startswith(name)), None)
