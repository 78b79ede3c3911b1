"""What Linux reports of processes and memory, in /proc and /sys/fs/cgroup."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

SHARED_BYTES = 32 << 20  # a fork shares them with its parent, and Linux counts them for both


def pid_of(process: int) -> int:
    """The number of the process that a descriptor refers to; 0 if it is not known here."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/self/fdinfo/{process}").read_text().splitlines():
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0


def waited_sec(pids: Iterable[int]) -> float:
    """How long processes were ready to run and had no core."""
    waited_ns = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return waited_ns / 1e9


def held_bytes(pids: Iterable[int]) -> int:
    """Memory of processes, beyond what each shares with the process that forked it."""
    held = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kinds = [one for one in lines if one.startswith(("RssAnon:", "RssShmem:"))]
            held += max(0, 1024 * sum(int(one.split()[1]) for one in kinds) - SHARED_BYTES)
    return held


def free_memory_bytes() -> int:
    """Memory that this machine, or this container, still has; 4 GiB where it is not known."""
    free = 4 << 30
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(one for one in lines if one.startswith("MemAvailable")).split()[1])
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int((Path("/sys/fs/cgroup") / path).read_text()))
    return free
