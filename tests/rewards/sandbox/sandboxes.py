"""One sandbox of each kind for all tests; kinds that do not work on this machine are skipped."""

import contextlib
import functools
import os
from pathlib import Path

import pytest

from score_jax.problem import InputError
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.start import Sandbox

KINDS = ("namespace", "landlock")


@functools.cache
def _started(kind: str) -> Sandbox | str:
    try:
        return start.start(kind)
    except InputError as error:
        return str(error)


def of_kind(kind: str) -> Sandbox:
    """A running sandbox; skips the test where that kind does not work."""
    found = _started(kind)
    if isinstance(found, str):
        pytest.skip(f"sandbox {kind!r} does not work here: {found[:300]}")
    return found


def need_any() -> None:
    """Skips the test if no kind works."""
    if all(isinstance(_started(kind), str) for kind in KINDS):
        pytest.skip(f"no sandbox works here: {_started(KINDS[0])}")


def close() -> None:
    """Ends all of them."""
    for kind in KINDS:
        if isinstance(found := _started(kind), Sandbox):
            found.close()
    _started.cache_clear()


def descendants(pid: int) -> list[int]:
    """The descendants of a process, as far as /proc shows them."""
    found = []
    with contextlib.suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def programs_of(box: Sandbox) -> list[int]:
    """The processes that hold programs, and those that they are forked from; not the testers."""
    scheduler = box._process.pid
    children = Path(f"/proc/{scheduler}/task/{scheduler}/children").read_text().split()
    found = []
    for pid in children:
        with contextlib.suppress(OSError):  # it has just ended
            if "forkserver" in Path(f"/proc/{pid}/cmdline").read_text():
                found += [int(pid), *descendants(int(pid))]
    return found


def testers_of(box: Sandbox) -> list[int]:
    """The processes that run tests, or wait for work."""
    programs = programs_of(box)
    return [pid for pid in descendants(box._process.pid) if pid not in programs]


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
