"""A process that loads what work needs once and then only forks: each fork is a lane.

A lane reads one JSON line per question, a list of arguments, and answers with one line. The
hatchery does no such work itself, so it always answers; lanes may hang and are killed through it.
pool.py is the other side.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

Answer = Callable[..., str]  # the question's arguments → one line without its end


def serve(control_fd: int, answer: Answer, *, memory_bytes: int) -> None:
    """Hatches and kills lanes as the control socket asks, until it closes. Runs in its own process.

    Messages: "L" with one socket → hatch a lane that answers there; reply: its pid.
    "K<pid>" → kill that lane and wait for its end; reply: "0".
    """
    control = socket.socket(fileno=control_fd)
    lanes: set[int] = set()
    try:
        control.sendall(b"ready\n")
        while True:
            data, fds, _, _ = socket.recv_fds(control, 64, 1)
            if not data:
                return
            if data[:1] == b"L":
                pid = os.fork()
                if pid == 0:
                    control.close()
                    _lane(fds[0], answer, memory_bytes)
                os.close(fds[0])
                lanes.add(pid)
                control.sendall(b"%d\n" % pid)
            elif data[:1] == b"K":
                _kill(int(data[1:]), lanes)
                control.sendall(b"0\n")
    except OSError:
        return  # the asker is gone
    finally:
        for pid in list(lanes):
            _kill(pid, lanes)


def refuse(control_fd: int, why: str) -> None:
    """Says instead of "ready" that this hatchery cannot work."""
    with socket.socket(fileno=control_fd) as control:
        control.sendall(json.dumps(why).encode() + b"\n")


def _kill(pid: int, lanes: set[int]) -> None:
    # Only this process reaps lanes, so the number cannot have become another process's.
    if pid in lanes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        lanes.discard(pid)


def _lane(fd: int, answer: Answer, memory_bytes: int) -> None:
    """Answers questions until the socket closes; never returns."""
    try:
        _die_with_parent()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)  # the parser complains there about every bad answer
        with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        with socket.socket(fileno=fd) as questions, questions.makefile("rb") as lines:
            for line in lines:
                questions.sendall(answer(*json.loads(line)).encode() + b"\n")
    finally:
        os._exit(0)


def _die_with_parent() -> None:
    """The kernel kills this lane if the hatchery is killed. Linux only; elsewhere it reads EOF."""
    if sys.platform != "linux":
        return
    import ctypes

    hatchery = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != hatchery:
        os._exit(0)
