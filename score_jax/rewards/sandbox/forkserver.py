"""The process that programs are forked from: started once, confined, warm, and empty.

scheduler.py starts it by `subprocess` with an empty environment and no descriptor but its control
socket, so nothing secret was ever in its memory: no test, no expected value, no key. It loads the
modules that programs use, confines itself (namespaces.py, or landlock.py), and then only forks:
each fork drops what rights are left, comes under limits and the filter of system calls, and becomes
the callee of one program (guest.py).

Layers of each fork, in order: own process group; own namespaces and /tmp (where there are
namespaces); limits of memory, CPU, files, threads; other user, no capabilities, no new privileges;
death with this process; seccomp.
"""

import contextlib
import gc
import importlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from score_jax.rewards.sandbox import guest
from score_jax.rewards.sandbox.linux import landlock, namespaces, seccomp, syscalls, visible_files

MEMORY_BYTES = 1 << 30
FILE_BYTES = 64 << 20
OPEN_FILES = 64
THREADS = 4096  # of one user over all programs; as another user than the trainer's where possible
CPU_SEC = 600  # behind the wall clock, which is scheduler.py's

# What programs import most, and what Python loads only when it is first needed.
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


def main(control_fd: int, tier: str) -> None:
    """Confines this process and forks a callee for each socket that comes over the control socket.

    Replies: "ready", or "failed: why"; then for each socket, sent with "J": "forked" and a
    descriptor of the new process. Ends when the control socket closes.
    """
    control = socket.socket(fileno=control_fd)
    try:
        _warm_up()
        into, before_fork = _confine(tier)
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
        before_fork()
        pid = os.fork()
        if pid == 0:
            _become_callee(fds[0], into)
        process = os.pidfd_open(pid)  # nobody has reaped it yet, so the number is still its own
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.close(fds[0])
        socket.send_fds(control, [b"forked\n"], [process])
        os.close(process)


def _warm_up() -> None:
    # Modules register here what mends their locks and seeds after a fork. This process has one
    # thread, so nothing needs mending, and it would cost each fork 200 page faults.
    register = os.register_at_fork
    os.register_at_fork = lambda **_: None  # type: ignore[assignment]
    for name in _WARM.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.register_at_fork = register
    gc.collect()
    gc.freeze()  # so that a collection in a fork leaves the shared pages shared


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _confine(tier: str) -> tuple[Confine, Confine]:
    """Confines this process; returns the tier's steps inside each fork, and before it."""
    if tier != "none":
        seccomp.prepare()
        syscalls.no_new_privileges()
    if tier == "namespace":
        own = namespaces.enter()
        syscalls.drop_bounding_set()

        def into() -> None:
            namespaces.private_tmp()
            _drop_rights(become_nobody=os.getuid() == 0)

        return into, lambda: namespaces.split(own)
    if tier == "landlock":
        nobody, kept = _nobody_and_kept()
        syscalls.drop_bounding_set()
        readable, listable = visible_files.without_hidden()
        os.chdir("/")
        landlock.confine([*readable], listable, visible_files.DEVICES)
        zygote = os.getpid()
        return lambda: _drop_rights(nobody, kept, zygote), lambda: None
    zygote = os.getpid()
    return lambda: syscalls.die_with_parent(zygote), lambda: None


def _become_callee(fd: int, into: Confine) -> None:
    """The fork: all layers, then the program. Never returns."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.dup2(fd, 3)
        os.closerange(4, 1 << 16)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.close(null)
        # A group, and no session: Linux shares the cores among sessions first, so that a hundred of
        # them would leave the warden next to nothing, whatever their priority.
        os.setpgid(0, 0)
        _limit()
        into()
        sys.modules["random"].seed(0)  # every program starts from one state, so rewards repeat
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
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(number, (most, most))


def _drop_rights(become_nobody: bool, kept: int = 0, parent: int | None = None) -> None:
    """Takes this process every right that it can do without, for good."""
    if become_nobody:
        if kept:
            syscalls.keep_capabilities_through_setuid()
        _become_nobody()
    syscalls.set_capabilities(kept)
    syscalls.no_core_dump()
    syscalls.die_with_parent(
        parent
    )  # in a PID namespace of its own a process cannot see its parent
    seccomp.install()


def _nobody_and_kept() -> tuple[bool, int]:
    """Whether programs of root can run as nobody, and the capability they need to load modules.

    The library may lie where only root may read, in /root for one. Then nobody needs the right to
    read all, or has to stay root, without any capability; Landlock guards all files either way.
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
    """Whether another user could load a module; asked by a fork that becomes one."""
    pid = os.fork()
    if pid == 0:
        try:
            _become_nobody()
            with open(os.__file__, "rb"):
                os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
