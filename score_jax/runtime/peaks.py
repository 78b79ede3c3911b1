"""Peak speeds of devices: the bounds of a step, and what measured speeds are shares of. Memory.

Sources: Google Cloud's documentation (cloud.google.com/tpu/docs), a page for each kind of TPU;
NVIDIA's data sheets of the A100, H100 and H200, for dense matrices.
"""

import dataclasses
import os
from pathlib import Path

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


def memory() -> str:
    """The memory that a run may use, in words: of each device, or of the machine for CPUs."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return f"{stats['bytes_limit'] / 1e9:.1f} GB on each {device.device_kind}"
    found = _machine_bytes()
    return f"{found / 1e9:.1f} GB on this machine" if found else "of unknown size"


def _machine_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of this machine's memory, or of a container's part of it; 0 if unknown.

    limit: the file in which Linux keeps the container's limit, "max" for none.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):  # not on every system
        return 0
    try:
        return min(total, int(limit.read_text()))
    except (OSError, ValueError):
        return total
