"""The process that programs are forked from: started once, confined, warm, and empty.

The scheduler starts it in an empty environment (launch.py). So nothing secret was ever in its
memory: no test, no expected value, no key. It loads the modules that programs use, confines itself
(namespaces.py, or landlock.py), and then only forks. Each fork drops the rights that are left, gets
limits and the filter of system calls, and becomes the guest that runs one program (guest.py).

Layers of each fork, in order: own process group; own namespaces and /tmp (where there are
namespaces); limits of memory, CPU, files, threads; other user, no capabilities, no new privileges;
death with this process; seccomp.
"""

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable

from score_jax.rewards.sandbox import guest
from score_jax.rewards.sandbox.linux import landlock, namespaces, seccomp, syscalls, visible_files
from score_jax.rewards.sandbox.packages import Packages, allow

MEMORY_BYTES = 1 << 30
FILE_BYTES = 64 << 20
OPEN_FILES = 64
THREADS = 4096  # of one user over all programs; not the trainer's user where that is possible
CPU_SEC = 600  # a last resort: the scheduler keeps the wall clock

# What programs import most, and what Python itself loads only when it first needs it.
_WARM = """
    abc argparse array ast asyncio base64 binascii bisect calendar cmath cmd codecs collections
    collections.abc colorsys concurrent.futures contextlib copy csv ctypes dataclasses datetime
    decimal difflib dis encodings.ascii encodings.idna encodings.latin_1 enum fnmatch fractions
    functools gc glob graphlib hashlib heapq hmac html inspect io itertools json keyword locale
    logging math numbers operator os pathlib pickle platform pprint queue random re reprlib
    secrets select selectors shlex shutil signal statistics string stringprep struct subprocess
    tempfile textwrap threading time timeit token tokenize traceback types typing unicodedata
    unittest uuid warnings weakref zlib zoneinfo _strptime
"""

Confine = Callable[[], None]


def main(control_fd: int, kind: str, packages: str) -> None:
    """Confines this process and forks a guest for each socket that arrives on the control socket.

    Replies: "ready", or "failed: why". Then for each socket, sent with "J": "forked 0" and a
    descriptor of the new process; "forked N" and a pipe that only the new process N holds open, on
    a system without such descriptors; or "refused: why". Ends when the control socket closes.
    """
    control = socket.socket(fileno=control_fd)
    try:
        found = Packages.of_text(packages)
        allow(found)
        visible_files.PACKAGES[:] = found.paths
        _warm_up([*_WARM.split(), *found.names])
        pidfds = _has_pidfds()
        if kind == "namespace" and not pidfds:
            raise OSError("there are no descriptors of processes (pidfd_open) here")
        into, before_fork = _confine(kind)
    except OSError as error:
        control.sendall(f"failed: {error}\n".encode())
        return
    signal.signal(signal.SIGCHLD, _reap)
    control.sendall(b"ready\n")
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        process, held = (-1, -1) if pidfds else os.pipe()
        try:
            before_fork()
            pid = os.fork()
        except OSError as error:  # no process is left
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _close(fds[0], process, held)
            control.sendall(f"refused: {error}\n".encode()[:64])
            continue
        if pid == 0:
            _become_guest(fds[0], held, into)
        if pidfds:
            process = os.pidfd_open(pid)  # SIGCHLD is blocked, so it is still this child's number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        socket.send_fds(control, [b"forked %d\n" % (0 if pidfds else pid)], [process])
        _close(fds[0], process, held)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _has_pidfds() -> bool:
    """Whether the system has descriptors of processes, and lets this one use them."""
    try:
        process = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(process, 0)  # type: ignore[arg-type]
        finally:
            os.close(process)
    except (AttributeError, OSError):
        return False
    return True


def _warm_up(modules: list[str]) -> None:
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a fork leaves the shared pages shared


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _confine(kind: str) -> tuple[Confine, Confine]:
    """Confines this process; returns the steps to take inside each fork, and before it."""
    if kind != "none":
        seccomp.prepare()
        syscalls.no_new_privileges()
    if kind == "namespace":
        own = namespaces.enter()
        syscalls.drop_bounding_set()

        def into() -> None:
            namespaces.private_tmp()
            _drop_rights(become_nobody=os.getuid() == 0)

        return into, lambda: namespaces.split(own)
    if kind == "landlock":
        nobody, kept = _nobody_and_kept()
        syscalls.drop_bounding_set()
        readable, listable = visible_files.without_hidden()
        os.chdir("/")
        landlock.confine([*readable], listable, visible_files.DEVICES)
        forkserver = os.getpid()
        return lambda: _drop_rights(nobody, kept, forkserver), lambda: None
    forkserver = os.getpid()

    def no_confinement() -> None:
        with contextlib.suppress(OSError):  # not Linux, or it is forbidden
            syscalls.die_with_parent(forkserver)

    return no_confinement, lambda: None


def _become_guest(fd: int, held: int, into: Confine) -> None:
    """In the fork: adds all layers, then runs the program. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.dup2(fd, 3)
        if held >= 0:
            os.dup2(held, 4)
        os.closerange(4 + (held >= 0), 1 << 16)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.close(null)
        # A group, not a session: Linux shares the cores among sessions first, so a hundred of them
        # would leave the scheduler next to nothing, whatever their priority.
        os.setpgid(0, 0)
        _limit()
        into()
        sys.modules["random"].seed(0)  # every program starts from the same state, so rewards repeat
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(0)
        guest.main(3)  # never returns
    finally:
        os._exit(1)


def _limit() -> None:
    for name, most in (
        ("AS", MEMORY_BYTES),
        ("CPU", CPU_SEC),
        ("FSIZE", FILE_BYTES),
        ("NOFILE", OPEN_FILES),
        ("CORE", 0),
        ("NPROC", THREADS),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
        ("SIGPENDING", 64),
    ):
        syscalls.limit(name, most)


def _drop_rights(become_nobody: bool, kept: int = 0, parent: int | None = None) -> None:
    """Gives up, for good, every right that this process can do without."""
    if become_nobody:
        if kept:
            syscalls.keep_capabilities_through_setuid()
        _become_nobody()
    syscalls.set_capabilities(kept)
    syscalls.no_core_dump()
    # parent: None in a PID namespace of its own, where a process cannot see its parent.
    syscalls.die_with_parent(parent)
    seccomp.install()


def _nobody_and_kept() -> tuple[bool, int]:
    """Whether programs can run as the user nobody, and the capability they need to load modules.

    The standard library may be where only root may read, such as /root. Then nobody needs the
    capability to read all files. Without it programs stay root, with no capability at all. In both
    cases Landlock guards all files.
    """
    if os.getuid() != 0:
        return False, 0
    if _readable_by_nobody():
        return True, 0
    permitted = syscalls.permitted_capabilities()
    for capability in (syscalls.CAP_DAC_READ_SEARCH, syscalls.CAP_DAC_OVERRIDE):
        if permitted >> capability & 1:
            return True, 1 << capability
    return False, 0


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(*[namespaces.NOBODY] * 3)
    os.setresuid(*[namespaces.NOBODY] * 3)


def _readable_by_nobody() -> bool:
    """Whether nobody could load a module; a fork becomes nobody and tries."""
    pid = os.fork()
    if pid == 0:
        try:
            _become_nobody()
            with open(os.__file__, "rb"):
                pass
            for path in visible_files.PACKAGES:
                os.close(os.open(path, os.O_RDONLY))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
