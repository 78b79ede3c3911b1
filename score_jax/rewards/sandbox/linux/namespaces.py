"""Namespaces of their own for model-written programs, made by unshare(2), without a helper program.

enter() moves this process into new user, mount, PID, network, IPC, host name and cgroup namespaces.
It gets a file system with the standard library and shared libraries, read-only, an empty /tmp, and
four devices. There is no /proc, no home, no network device and no other process. Then each program
gets PID, mount and IPC namespaces of its own (split(), private_tmp()): it sees only itself, and
what it writes disappears with it.

Works as root, and as any user where the kernel lets users make namespaces (Linux 5.12 and later).
Where root trains, programs run as nobody. Otherwise they run as the user who trains, who owns
nothing in the namespaces.
"""

import os
from pathlib import Path

from score_jax.rewards.sandbox.linux import syscalls, visible_files

NOBODY = 65534
TMP_BYTES = 16 << 20
TMP_FILES = 2_000
# Where the new root is built; any folder that exists would do.
_ROOT = next(filter(os.path.isdir, ("/tmp", "/var/tmp", "/mnt", "/srv", "/media")), "/tmp")

_NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


def enter() -> int:
    """Returns in a child of the calling process, the first in its namespaces; the caller waits.

    Returns: a descriptor of the PID namespace, for split().
    Raises: OSError where the kernel refuses one of the steps.
    """
    _unshare_with_users()
    child = os.fork()
    if child:
        _wait(child)
    syscalls.die_with_parent()
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.keep_mounts_private()
    _build_root()
    return own


def _wait(child: int) -> None:
    """Ends when the child ends, with its status; the child is killed if this process ends first."""
    syscalls.die_with_parent()
    os.closerange(0, 1 << 16)  # the control socket above all: the child must read its end of file
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0x7F)


def _unshare_with_users() -> None:
    """Enters the namespaces, with the users that programs will run as.

    A map of two users can only be written from outside, so a fork of root stays outside for that.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid:
        syscalls.unshare(_NAMESPACES)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return
    wait, go = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            os.close(go)
            os.read(wait, 1)
            for name in ("uid_map", "gid_map"):
                users = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
                Path(f"/proc/{os.getppid()}/{name}").write_text(users)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        syscalls.unshare(_NAMESPACES)
    finally:
        os.close(wait)
        os.close(go)
        _, status = os.waitpid(writer, 0)
    if status:
        raise OSError("the users of the namespace could not be set")


def _build_root() -> None:
    mounts = [(path, syscalls.copy_mount(path)) for path in visible_files.folders()]
    files = [(path, syscalls.copy_mount(os.path.realpath(path))) for path in visible_files.files()]
    devices = [
        (path, syscalls.copy_mount(path, device=True))
        for path in visible_files.DEVICES
        if os.path.exists(path)
    ]
    packages = _copies(visible_files.PACKAGES)
    links, hidden = visible_files.links(), visible_files.hidden()
    syscalls.mount_tmpfs(_ROOT, "size=1m,mode=755")
    for path, fd in mounts:
        os.makedirs(_ROOT + path, 0o755, exist_ok=True)
        syscalls.attach_mount(fd, _ROOT + path)
    for path, fd in (*files, *devices):
        os.makedirs(os.path.dirname(_ROOT + path), 0o755, exist_ok=True)
        os.close(os.open(_ROOT + path, os.O_CREAT | os.O_WRONLY, 0o644))
        syscalls.attach_mount(fd, _ROOT + path)
    for path, target in links:
        os.makedirs(os.path.dirname(_ROOT + path), 0o755, exist_ok=True)
        os.symlink(target, _ROOT + path)
    for path in hidden:
        syscalls.mount_tmpfs(_ROOT + path, "size=4k,mode=755")
    _attach(packages, _ROOT)
    for path in hidden:
        syscalls.protect_mount(_ROOT + path)
    os.makedirs(_ROOT + "/tmp", 0o755, exist_ok=True)  # packages may be in it
    os.mkdir(_ROOT + "/proc", 0o755)
    syscalls.change_root(_ROOT)
    syscalls.protect_mount("/")


def _copies(paths: list[str]) -> list[tuple[str, int, bool]]:
    """Paths, with a copy of the mount at each, and whether it is a folder."""
    return [
        (path, syscalls.copy_mount(os.path.realpath(path)), os.path.isdir(path)) for path in paths
    ]


def _attach(copies: list[tuple[str, int, bool]], root: str) -> None:
    for path, fd, folder in copies:
        os.makedirs(os.path.dirname(root + path), 0o755, exist_ok=True)
        if folder:
            os.makedirs(root + path, 0o755, exist_ok=True)
        else:
            os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY, 0o644))
        syscalls.attach_mount(fd, root + path)


def split(own: int) -> None:
    """Makes the next fork the first process of a PID namespace; own: what enter() returned."""
    syscalls.join(own, syscalls.CLONE_NEWPID)
    syscalls.unshare(syscalls.CLONE_NEWPID)


def private_tmp() -> None:
    """Mounts a /tmp that only this process sees and that ends with it; called in that fork."""
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC)
    packages = _copies([path for path in visible_files.PACKAGES if path.startswith("/tmp/")])
    syscalls.mount_tmpfs(
        "/tmp",
        f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=1777",
        syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
    )
    _attach(packages, "")
    os.chdir("/tmp")
