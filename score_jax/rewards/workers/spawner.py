"""A process that loads the libraries once and then only forks: each fork is a worker.

A worker reads one JSON line per question, a list of arguments, and answers with one line. Workers
may hang. The spawner answers no questions itself, so it can always kill them. pool.py is the other
side.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from score_jax.rewards.sandbox.linux import syscalls

Answer = Callable[..., str]  # the question's arguments → one line without its end


def serve(control_fd: int, answer: Answer, *, memory_bytes: int, says: str = "") -> None:
    """Starts and kills workers on request, until the control socket closes.

    memory_bytes: the address space of a worker; 0: as much as there is.
    says: one line without its end, for the pool (Pool.says).
    Requests: "S" with one socket → start a worker that answers there; reply: its pid.
    "K<pid>" → kill that worker and wait for its end; reply: "0".
    """
    control = socket.socket(fileno=control_fd)
    workers: set[int] = set()
    spawner = os.getpid()
    try:
        control.sendall(f"ready {says}\n".encode())
        while True:
            data, fds, _, _ = socket.recv_fds(control, 64, 1)
            if not data:
                return
            if data[:1] == b"S":
                pid = os.fork()
                if pid == 0:
                    control.close()
                    _work(fds[0], answer, memory_bytes, spawner)
                os.close(fds[0])
                with contextlib.suppress(OSError):  # the worker does it too; one of them is first
                    os.setpgid(pid, pid)
                workers.add(pid)
                control.sendall(b"%d\n" % pid)
            elif data[:1] == b"K":
                _kill(int(data[1:]), workers)
                control.sendall(b"0\n")
    except OSError:
        return  # the pool is gone
    finally:
        for pid in list(workers):
            _kill(pid, workers)


def fail(control_fd: int, why: str) -> None:
    """Reports, instead of "ready", why this spawner cannot start."""
    with socket.socket(fileno=control_fd) as control:
        control.sendall(json.dumps(why).encode() + b"\n")


def _kill(pid: int, workers: set[int]) -> None:
    # Only this process reaps workers, so the number is still the worker's.
    if pid in workers:
        for kill in (os.killpg, os.kill):  # what it has started, and itself
            with contextlib.suppress(OSError):
                kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        workers.discard(pid)


def _work(fd: int, answer: Answer, memory_bytes: int, spawner: int) -> None:
    """Answers questions until the socket closes; never returns."""
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        if sys.platform == "linux":  # elsewhere a worker ends when it reads the end of file
            syscalls.die_with_parent(spawner)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)  # the parser prints an error there for every bad answer
        with contextlib.suppress(ValueError, OSError):  # macOS lacks this limit
            if memory_bytes:
                resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        worker = os.getpid()
        with socket.socket(fileno=fd) as questions, questions.makefile("rb") as lines:
            for line in lines:
                reply = answer(*json.loads(line)).encode() + b"\n"
                if os.getpid() != worker:
                    return  # a user's function forked, and its child came back here too
                questions.sendall(reply)
    finally:
        os._exit(0)
