"""TPU chips: their topologies by name, their memory and their speeds.

Sources: the pages "TPU v5e", "TPU v5p" and "TPU v6e" of Google Cloud's documentation
(cloud.google.com/tpu/docs). Interconnect figures there count both directions; a chip sends half.
`usable_bytes` is the limit that the compiler of libtpu 0.0.42 states in its message.
"""

import dataclasses
import math
import re

from score_jax.problem import InputError, nearest
from score_jax.runtime.peaks import PEAKS, Peak

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one device here."""

    name: str
    usable_bytes: float  # of HBM
    peak: Peak
    ici_bytes_per_sec: float  # sent over all links


CHIPS = {
    "v5e": Chip("v5e", 15.75 * GIB, PEAKS["TPU v5e"], 200e9),
    "v5p": Chip("v5p", 95.74 * GIB, PEAKS["TPU v5"], 600e9),
    "v6e": Chip("v6e", 31.25 * GIB, PEAKS["TPU v6"], 400e9),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a pod."""

    topology: str
    chip: Chip
    chips: int

    @property
    def rented_as(self) -> str:
        """The cloud's name of the slice. It counts cores for v5p: v5p-32 has 16 chips."""
        return f"{self.chip.name}-{self.chips * (2 if self.chip.name == 'v5p' else 1)}"


def slice_of(topology: str) -> Slice:
    """The slice that a topology such as "v5e:4x4" names. Raises: InputError."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", topology)
    if not match:
        raise InputError(
            f"--topology={topology!r} is not a known TPU topology. Give the chip and its "
            "grid, such as v5e:4x4 (16 chips), v5p:2x2x4 or v6e:8x8."
        )
    kind, grid = match.groups()
    if kind not in CHIPS:
        raise InputError(f"--topology={topology}: unknown chip {kind}. {nearest(kind, CHIPS)}")
    return Slice(topology, CHIPS[kind], math.prod(map(int, grid.split("x"))))
