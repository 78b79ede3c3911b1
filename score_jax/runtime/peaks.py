"""Peak speeds of devices: the bounds of a step, and what measured speeds are shares of. Memory.

Sources: Google Cloud's documentation (cloud.google.com/tpu/docs), a page for each kind of TPU;
NVIDIA's data sheets and architecture papers, for dense matrices with sums in float32.
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
    float32_flops: float = 0.0  # of products in full float32; 0: a sixth of `flops`, as on TPUs

    @property
    def full_precision_flops(self) -> float:
        """Per second, of matrix products in full float32: a TPU makes six bfloat16 passes."""
        return self.float32_flops or self.flops / 6

    @property
    def has_bfloat16(self) -> bool:
        """Whether its matrix units take bfloat16; else XLA converts to float32 and computes so."""
        return self.flops != self.float32_flops


# By prefix of jax's device kind; the first that fits counts.
PEAKS = {
    "TPU v4": Peak(275e12, 1228e9),
    "TPU v5 lite": Peak(197e12, 819e9),
    "TPU v5e": Peak(197e12, 819e9),
    "TPU v5": Peak(459e12, 2765e9),  # v5p
    "TPU v6": Peak(918e12, 1640e9),  # v6e
    "Tesla T4": Peak(8.1e12, 320e9, 8.1e12),
    "Tesla V100": Peak(15.7e12, 900e9, 15.7e12),
    "NVIDIA GeForce RTX 3090": Peak(71e12, 936e9, 35.6e12),
    "NVIDIA GeForce RTX 4090": Peak(165.2e12, 1008e9, 82.6e12),
    "NVIDIA GeForce RTX 5090": Peak(209.5e12, 1792e9, 104.8e12),
    "NVIDIA L40S": Peak(362e12, 864e9, 91.6e12),
    "NVIDIA L4": Peak(121e12, 300e9, 30.3e12),
    "NVIDIA A10G": Peak(70e12, 600e9, 35e12),
    "NVIDIA A10": Peak(125e12, 600e9, 31.2e12),
    "NVIDIA RTX A6000": Peak(154.8e12, 768e9, 38.7e12),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1555e9, 19.5e12),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2039e9, 19.5e12),
    "NVIDIA H100 80GB HBM3": Peak(989e12, 3350e9, 67e12),
    "NVIDIA H200": Peak(989e12, 4800e9, 67e12),
    "NVIDIA B200": Peak(2250e12, 8000e9, 75e12),
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
