"""Keeps the pages of freed memory, for programs that compute on the CPU.

XLA's temporaries on a CPU come from malloc. glibc returns large ones to the kernel, which hands out
zeroed pages at the next step: that takes a sixth of the time of an update of the benchmark's
`real`. With this setting the process keeps the pages between steps; its peak memory is the same.
Does nothing without glibc, on a machine with an accelerator, or if the environment has settings of
malloc.
"""

import ctypes
import glob
import os
import sys

_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")
# mallopt(3) and malloc.h. Threads other than the first always get large blocks from mmap, unless
# all threads share the first thread's arena.
_ONE_ARENA, _NEVER_MMAP, _NEVER_TRIM = (-8, 1), (-4, 0), (-1, -1)


def keep_pages() -> None:
    """Call this before anything starts threads, and so before jax is imported."""
    if not sys.platform.startswith("linux") or _chosen() or _has_accelerator():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        for parameter, value in (_ONE_ARENA, _NEVER_MMAP, _NEVER_TRIM):
            mallopt(parameter, value)


def _chosen() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def _has_accelerator() -> bool:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(glob.glob(pattern) for pattern in _ACCELERATORS)
