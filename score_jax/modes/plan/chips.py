"""Devices to plan for, by name: TPU slices, GPUs, or anything of a given memory.

    slice_of("v5e:4x4"), slice_of("v5e-16")     a slice of TPUs; the cloud's names are read too
    slice_of("2xv5e-16")                        two of them, joined by the data centre's network
    machine_of("a100-80gb:8", "")               GPUs of a kind; TPU slices as above
    machine_of("", "24GiB")                     a device of which only the memory is known

Sources: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of Google Cloud's documentation
(cloud.google.com/tpu/docs). Interconnect figures there count both directions; a chip sends half.
The data centre's network is given there by chip (v5p) or by 256 chips (v5e).
`usable_bytes` of a TPU is the limit that the compiler of libtpu 0.0.42 states in its message; of a
GPU it is the share that jax takes of the memory on NVIDIA's data sheet (docs.jax.dev, "GPU memory
allocation").
"""

import dataclasses
import math
import os
import re

from score_jax.problem import InputError, nearest
from score_jax.runtime.peaks import PEAKS, Peak

GIB = 2**30
TAKEN = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # jax reads it: its share of a GPU's memory
TAKEN_DEFAULT, TAKEN_MOST = 0.75, 0.95


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one device here."""

    name: str
    usable_bytes: float  # of its memory
    peak: Peak | None  # None: not known
    ici_bytes_per_sec: float = 0.0  # sent over all links; 0: not known
    network_bytes_per_sec: float = 0.0  # sent between slices; 0: not known
    platform: str = "tpu"
    whole_bytes: float = 0.0  # of a GPU: its memory, of which jax may be told to take more


CHIPS = {
    "v5e": Chip("v5e", 15.75 * GIB, PEAKS["TPU v5e"], 200e9, 3.125e9),
    "v5p": Chip("v5p", 95.74 * GIB, PEAKS["TPU v5"], 600e9, 6.25e9),
    "v6e": Chip("v6e", 31.25 * GIB, PEAKS["TPU v6"], 400e9),
}
# Name -> (GiB of memory, key of PEAKS).
GPUS = {
    "t4": (15, "Tesla T4"),
    "v100-16gb": (16, "Tesla V100"),
    "v100-32gb": (32, "Tesla V100"),
    "rtx3090": (24, "NVIDIA GeForce RTX 3090"),
    "rtx4090": (24, "NVIDIA GeForce RTX 4090"),
    "rtx5090": (32, "NVIDIA GeForce RTX 5090"),
    "l4": (22.5, "NVIDIA L4"),
    "l40s": (45, "NVIDIA L40S"),
    "a10": (22.5, "NVIDIA A10"),
    "a10g": (22.5, "NVIDIA A10G"),
    "a6000": (48, "NVIDIA RTX A6000"),
    "a100-40gb": (40, "NVIDIA A100-SXM4-40GB"),
    "a100-80gb": (80, "NVIDIA A100-SXM4-80GB"),
    "h100": (79.6, "NVIDIA H100 80GB HBM3"),
    "h200": (140.4, "NVIDIA H200"),
    "b200": (179, "NVIDIA B200"),
}
_ALSO = {"a100": "a100-40gb", "v100": "v100-16gb", "v5litepod": "v5e", "v5lite": "v5e"}
# Chips -> the grid that the cloud rents; v5e and v6e, and v5p by chips too (it is named by cores).
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_SOLID = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
    512: "8x8x8",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices of one kind."""

    topology: str  # of a TPU slice; else empty
    chip: Chip
    chips: int  # of all slices
    slices: int = 1

    @property
    def rented_as(self) -> str:
        """The cloud's name of a slice, which counts cores for v5p: v5p-32 has 16 chips."""
        if not self.topology:
            return self.chip.name + (f":{self.chips}" if self.chips > 1 else "")
        of_slice = self.chips // self.slices * (2 if self.chip.name == "v5p" else 1)
        return (f"{self.slices}x" if self.slices > 1 else "") + f"{self.chip.name}-{of_slice}"


def slice_of(name: str) -> Machine:
    """The slice that a topology such as "v5e:4x4", or a name such as "v5e-16", means.

    "2xv5e-16" are two of them. Raises: InputError.
    """
    many = re.match(r"([1-9]\d*)x(?=v)", name.lower())
    slices = int(many[1]) if many else 1
    kind, grid = _topology(name[many.end() :] if many else name)
    if kind not in CHIPS:
        raise InputError(f"--topology={name}: unknown chip {kind}. {nearest(kind, CHIPS)}")
    chips = slices * math.prod(map(int, grid.split("x")))
    return Machine(f"{kind}:{grid}", CHIPS[kind], chips, slices)


def machine_of(device: str, memory: str) -> Machine:
    """The devices that --device and --memory name; memory, where given, is that of one device.

    Raises: InputError.
    """
    size, of_memory = _counted(memory, "--memory") if memory else ("", 1)
    usable = _bytes(size) if memory else 0.0
    if not device:
        name = f"a device of {usable / GIB:.4g} GiB"
        return Machine("", Chip(name, usable, None, platform="gpu"), of_memory)
    if re.fullmatch(r"(\d+x)?v\d\w*[-:]\d+(x\d+)*", device.lower()):
        found = slice_of(device)
    else:
        kind, count = _counted(device.lower(), "--device")
        kind = _ALSO.get(kind, kind)
        if kind not in GPUS:
            raise InputError(
                f"--device={device} is not a device known here. "
                f"{nearest(kind, [*GPUS, *(f'{chip}-16' for chip in CHIPS)])} Several: "
                "--device=a100-80gb:8. For another device give its memory: --memory=24GiB."
            )
        gib, peak = GPUS[kind]
        taken = float(os.environ.get(TAKEN) or TAKEN_DEFAULT)
        chip = Chip(kind, gib * GIB * taken, PEAKS[peak], platform="gpu", whole_bytes=gib * GIB)
        found = Machine("", chip, max(count, of_memory))
    if not memory:
        return found
    return dataclasses.replace(
        found, chip=dataclasses.replace(found.chip, usable_bytes=usable, whole_bytes=0.0)
    )


def _topology(name: str) -> tuple[str, str]:
    """Kind and grid of "v5e:4x4", "v5e-16" or "v5litepod-16"."""
    if match := re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)+)", name.lower()):
        return _ALSO.get(match[1], match[1]), match[2]
    if not (match := re.fullmatch(r"(\w+)-(\d+)", name.lower())):
        raise InputError(
            f"--topology={name!r} is not a known TPU topology. Give the slice's name or the chip "
            "and its grid, such as v5e-16 or v5e:4x4 (16 chips), v5p:2x2x4 or v6e:8x8. GPUs are "
            "planned with --device=a100-80gb:8, other devices with --memory=24GiB."
        )
    kind, number = _ALSO.get(match[1], match[1]), int(match[2])
    grids = {2 * chips: grid for chips, grid in _SOLID.items()} if kind == "v5p" else _FLAT
    if kind in CHIPS and number not in grids:
        raise InputError(
            f"--topology={name}: there is no {kind} slice of that size. Known: "
            f"{', '.join(f'{kind}-{size}' for size in grids)}."
        )
    return kind, grids.get(number, "")


def _counted(text: str, flag: str) -> tuple[str, int]:
    """ "a100-80gb:8" as ("a100-80gb", 8). Raises: InputError."""
    name, _, count = text.partition(":")
    if count and not re.fullmatch(r"[1-9]\d*", count):
        raise InputError(f"{flag}={text}: after the colon stands how many devices, such as :8.")
    return name, int(count or 1)


def _bytes(text: str) -> float:
    """ "24GiB", "24GB" or "24" (GiB) in bytes. Raises: InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    value = float(match[1]) if match else 0.0
    if not match or not value:
        raise InputError(f"--memory={text} is not a size of memory. Give one such as 24GiB.")
    if not match[2]:
        return value * GIB
    return value * (1024 if match[3] else 1000) ** (1 + "kmgt".index(match[2]))
