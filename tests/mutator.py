"""A seeded mutator of bytes, and how long to run it: seconds by default, minutes under --slow."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Numbers that lengths, counts and offsets should not be.
_ODD = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1]

AT_LEAST = 25  # however slow the machine is


def mutated(seeds: Sequence[bytes], draw: np.random.Generator) -> bytes:
    """One of the seeds with up to six changes: bytes, numbers, slices cut, doubled, exchanged."""
    data = bytearray(seeds[draw.integers(len(seeds))])
    for _ in range(draw.integers(1, 7)):
        at = int(draw.integers(len(data) + 1))
        end = min(len(data), at + int(2 ** draw.uniform(0, 7)))
        match int(draw.integers(7)):
            case 0 if at < len(data):
                data[at] ^= 1 << int(draw.integers(8))
            case 1 if at < len(data):
                data[at] = int(draw.integers(256))
            case 2:
                width = int(draw.choice([1, 2, 4, 8]))
                odd = _ODD[draw.integers(len(_ODD))] % 2 ** (8 * width)
                data[at : at + width] = odd.to_bytes(width, "little")
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * int(draw.integers(1, 5))
            case 5:
                other = seeds[draw.integers(len(seeds))]
                start = int(draw.integers(len(other) + 1))
                data[at:end] = other[start : start + end - at]
            case 6:
                del data[at:]
    return bytes(data)


def inputs(seeds: Sequence[bytes], seconds: float, seed: int = 0) -> Iterator[bytes]:
    """Mutations of the seeds, for that long and at least AT_LEAST."""
    draw, ends = np.random.default_rng(seed), time.monotonic() + seconds
    for number in itertools.count():
        if number >= AT_LEAST and time.monotonic() >= ends:
            return
        yield mutated(seeds, draw)


def survives(
    read: Callable[[bytes], object],
    seeds: Sequence[bytes],
    seconds: float,
    allowed: tuple[type[Exception], ...] = (),
    seed: int = 0,
) -> int:
    """Reads mutations for that long; any other exception fails with the input. Their number."""
    count = 0
    for data in inputs(seeds, seconds, seed):
        count += 1
        try:
            read(data)
        except allowed:
            pass
        except Exception as error:
            raise AssertionError(f"input {count} of seed {seed}: {data!r}") from error
    return count
