"""Confines this process and its children to reading some folders: Landlock, Linux 5.13 and later.

No privileges are needed. Nothing can be written, made, removed or run. No port can be bound or
connected to (ABI 4), no signal sent outside (ABI 6). Landlock does not cover changes of mode, owner
or times, nor truncation before ABI 3: seccomp.py refuses those calls. Landlock does not hide that a
file exists.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterable

from score_jax.rewards.sandbox.linux import syscalls

_WRITE_FILE, _READ_FILE, _READ_DIR = 2, 4, 8
_FILE_RIGHTS = (0, 13, 14, 15, 15, 16)  # how many rights over files each version knows
_VERSION, _PATH_BENEATH = 1, 1


def abi() -> int:
    """The version of the kernel's interface. Raises: OSError where the kernel has none."""
    none = ctypes.c_void_p(None)
    return syscalls.system_call("landlock", syscalls.LANDLOCK_CREATE, none, 0, _VERSION)


def confine(readable: Iterable[str], listable: Iterable[str], devices: Iterable[str]) -> None:
    """Restricts this process to those paths, for good. It needs no_new_privileges.

    readable: files, and folders with all their contents. listable: folders whose file names may be
    listed. devices: files that may be read and written.
    """
    version = abi()
    files = (1 << _FILE_RIGHTS[min(version, 5)]) - 1
    ports, scopes = 3 if version >= 4 else 0, 3 if version >= 6 else 0
    handled = (ctypes.c_uint64 * 3)(files, ports, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    fd = syscalls.system_call("landlock", syscalls.LANDLOCK_CREATE, handled, size, 0)
    try:
        for paths, access in (
            (readable, _READ_FILE | _READ_DIR),
            (listable, _READ_DIR),
            (devices, _READ_FILE | _WRITE_FILE),
        ):
            for path in paths:
                _allow(fd, path, access)
        syscalls.system_call("landlock", syscalls.LANDLOCK_RESTRICT, fd, 0)
    finally:
        os.close(fd)


def _allow(ruleset: int, path: str, access: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):
                access &= ~_READ_DIR
            rule = access.to_bytes(8, "little") + fd.to_bytes(4, "little")
            buffer = ctypes.create_string_buffer(rule, len(rule))
            syscalls.system_call(
                "landlock", syscalls.LANDLOCK_ADD, ruleset, _PATH_BENEATH, buffer, 0
            )
        finally:
            os.close(fd)
