"""The calls to Linux that Python lacks, through ctypes; each raises OSError with its name.

Only what the sandbox needs: namespaces and mounts (namespaces.py), Landlock (landlock.py), the
privileges of a process, and its death with its parent. Numbers are the kernel's own.
Not handled: 32-bit machines, systems other than Linux.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_SLAVE = 0x4000, 0x80000
MNT_DETACH = 2

# pivot_root has no wrapper in libc, and a number of its own on each machine.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# System calls since Linux 5.1 have the same numbers on all machines.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_FROM_EMPTY = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 1, 4, 8, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def call(name: str, *arguments: Any) -> int:
    """Calls a function of libc; a negative result is an OSError."""
    if _libc is None:
        raise OSError(f"{name}: not Linux")
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def system_call(name: str, number: int, *arguments: Any) -> int:
    """Makes a system call that libc has no function for."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    try:
        return call("syscall", ctypes.c_long(number), *words)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)}") from None


def unshare(flags: int) -> None:
    """Moves this process into new namespaces."""
    call("unshare", ctypes.c_int(flags))


def join(namespace: int, flag: int) -> None:
    """Moves this process into a namespace, by its descriptor; for a PID namespace, its children."""
    call("setns", ctypes.c_int(namespace), ctypes.c_int(flag))


def mount_tmpfs(target: str, options: str, flags: int = MS_NOSUID | MS_NODEV) -> None:
    """Mounts an empty file system in memory."""
    path, kind = target.encode(), b"tmpfs"
    call("mount", kind, path, kind, ctypes.c_ulong(flags), options.encode())


def keep_mounts_private() -> None:
    """Hides later mounts in this namespace from all others."""
    call("mount", None, b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None)


def copy_mount(path: str, *, device: bool = False) -> int:
    """A descriptor of a read-only copy of the file system at `path`, for attach_mount."""
    fd = system_call(
        "open_tree",
        _OPEN_TREE,
        _AT_FDCWD,
        path.encode(),
        _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC,
    )
    try:
        if not device:
            _protect(fd, b"", _AT_EMPTY_PATH | _AT_RECURSIVE)
    except OSError:
        os.close(fd)
        raise
    return fd


def attach_mount(fd: int, target: str) -> None:
    """Attaches what copy_mount returned, and closes the descriptor."""
    try:
        path = target.encode()
        empty = _MOVE_MOUNT_FROM_EMPTY
        system_call("move_mount", _MOVE_MOUNT, fd, b"", _AT_FDCWD, path, empty)
    finally:
        os.close(fd)


def protect_mount(path: str) -> None:
    """Makes one mounted file system read-only."""
    _protect(_AT_FDCWD, path.encode(), 0)


def _protect(fd: int, path: bytes, flags: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    system_call("mount_setattr", _MOUNT_SETATTR, fd, path, flags, attributes, size)


def change_root(folder: str) -> None:
    """Makes a mounted folder this process's whole file system; the old one is gone."""
    os.chdir(folder)
    machine = platform.machine()
    if machine not in _PIVOT_ROOT:
        raise OSError(f"pivot_root: its number on {machine} is not known")
    system_call("pivot_root", _PIVOT_ROOT[machine], b".", b".")
    call("umount2", b".", ctypes.c_int(MNT_DETACH))
    os.chdir("/")


def die_with_parent(parent: int | None = None) -> None:
    """Has the kernel kill this process when its parent ends. A change of user undoes this.

    parent: the process expected as the parent; if it is no longer that, this process ends at once.
    """
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def limit(name: str, most: int) -> None:
    """Limits a resource of this process, RLIMIT_name, to `most` or to a lower limit that it has.

    Other systems than Linux lack some limits and refuse others; these are left out there.
    """
    kind = getattr(resource, f"RLIMIT_{name}", None)
    if kind is None and sys.platform != "linux":
        return
    hard = resource.getrlimit(kind)[1]  # type: ignore[arg-type]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (most, most))  # type: ignore[arg-type]
    except (ValueError, OSError):
        if sys.platform == "linux":
            raise


def no_new_privileges() -> None:
    """Keeps this process and its children from gaining rights by running another program."""
    _control(_PR_SET_NO_NEW_PRIVS, 1)


def no_core_dump() -> None:
    """Keeps this process from leaving a core dump, and its own user from tracing it."""
    _control(_PR_SET_DUMPABLE, 0)


def drop_bounding_set() -> None:
    """Removes every capability from those that this process may ever have again."""
    with contextlib.suppress(OSError):
        _control(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    with contextlib.suppress(OSError):  # past the last, or not allowed: there is none to gain
        for capability in range(64):
            _control(_PR_CAPBSET_DROP, capability)


def permitted_capabilities() -> int:
    """The capabilities that this process has or may take, one bit each."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))


def set_capabilities(kept: int = 0) -> None:
    """Reduces the capabilities of this process to the bit mask `kept`."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    call("capset", header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))


def keep_capabilities_through_setuid() -> None:
    """Keeps the permitted capabilities through the next change of user."""
    _control(_PR_SET_KEEPCAPS, 1)


def _control(option: int, value: int) -> None:
    none = ctypes.c_ulong(0)
    call("prctl", ctypes.c_int(option), ctypes.c_ulong(value), none, none, none)
