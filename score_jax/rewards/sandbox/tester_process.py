"""Processes that run the tests of one program after another, forked from the scheduler.

They hold tests and expected values, run no code of a model, and accept only plain data from it
(tester.py). So one process serves many programs: a fork costs more than the tests of most. It ends,
and another is forked, when a program's data has made it large, when tests may have changed more
than their own names, when it was killed at a deadline, and after MOST_JOBS in any case.
"""

import ast
import contextlib
import json
import os
import random
import resource
import signal
import socket
import sys

from score_jax.rewards.sandbox import tester
from score_jax.rewards.sandbox.linux import syscalls
from score_jax.rewards.sandbox.tester import Job

MOST_JOBS = 200
BYTES = 2 << 30
GROWN_BYTES = 16 << 20  # beyond what it began with; less than proc.SHARED_BYTES

# Modules that tests can alter only by assigning to them.
_STATELESS = {
    *("cmath", "collections", "functools", "heapq", "itertools", "math", "operator", "re"),
    *("string", "typing"),
}
_MODULES = sys.stdlib_module_names - _STATELESS
_REACHING = {"setattr", "delattr", "globals", "vars", "exec", "eval", "getattr"}


class TesterProcess:
    """One such process, as the scheduler sees it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        scheduler = os.getpid()
        try:
            self.pid = os.fork()
        except OSError:  # no process is left
            ours.close()
            theirs.close()
            raise
        if self.pid == 0:
            _become(theirs.fileno(), scheduler)
        theirs.close()
        self.socket = ours

    def run_tests(self, job: Job, guest: int) -> None:
        """Has it run a job's tests against the guest on the other end of the descriptor `guest`.

        Raises: OSError if the tester process is gone.
        """
        message = json.dumps(vars(job)).encode() + b"\n"
        sent = socket.send_fds(self.socket, [message], [guest])
        self.socket.sendall(message[sent:])

    def verdict(self) -> tuple[str, bool]:
        """The reason, and whether the process can be used again; no reason if it died.

        To be called once its socket can be read.
        """
        try:
            reason, _, state = self.socket.recv(64).decode().partition(" ")
        except OSError:
            reason, state = "", ""
        return reason, state == "reusable"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own

    def end(self) -> None:
        """Kills it and waits until it is gone."""
        self.kill()
        os.waitpid(self.pid, 0)
        self.socket.close()


def _become(fd: int, scheduler: int) -> None:
    """In the fork: runs tests until the scheduler closes the socket. Never returns."""
    try:
        with contextlib.suppress(OSError):  # not Linux: it reads the end of file
            syscalls.die_with_parent(scheduler)
        signal.set_wakeup_fd(-1)
        os.dup2(1, 2)  # what tests print is not the scheduler's last words
        os.dup2(fd, 3)
        os.closerange(4, 1 << 16)
        syscalls.limit("AS", BYTES)
        syscalls.limit("CORE", 0)
        with socket.socket(fileno=3) as requests:
            _serve(requests)
    finally:
        os._exit(0)


def _serve(requests: socket.socket) -> None:
    began_bytes = _most_bytes()
    for number in range(1, 1 + MOST_JOBS):
        data, fds, _, _ = socket.recv_fds(requests, 1 << 16, 1)
        parts = [data]
        while parts[-1] and not parts[-1].endswith(b"\n"):
            parts.append(requests.recv(1 << 20))
        if not parts[-1]:
            return
        job = Job.of_fields(json.loads(b"".join(parts)))
        random.seed(0)
        reason = tester.verdict(job, fds[0])
        os.close(fds[0])
        grown = _most_bytes() > began_bytes + GROWN_BYTES
        ends = grown or alters(job) or number == MOST_JOBS
        requests.sendall(f"{reason} {'ends' if ends else 'reusable'}".encode())


def alters(job: Job) -> bool:
    """Whether a job's tests may leave a trace in their process, such as a changed module."""
    try:
        tree = ast.parse("\n".join((job.prelude, job.setup, *job.tests)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return any(_reaches_out(node) for node in ast.walk(tree))


def _reaches_out(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return not isinstance(node.ctx, ast.Load) or node.attr.startswith("__")
    if isinstance(node, ast.Name):
        return node.id in _MODULES or node.id in _REACHING or node.id.startswith("__")
    if isinstance(node, ast.Import):
        return not {one.name for one in node.names} <= _STATELESS
    return isinstance(node, ast.ImportFrom) and node.module not in _STATELESS


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
