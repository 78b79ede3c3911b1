"""A pool of workers: processes that may hang, and are killed and replaced then.

There is one pool for algebra (algebra.py), and one for each reward function of the user's own
(serving.py), in each process that grades (per_process.py). A pool starts one spawner (spawner.py)
on first use, by `subprocess`: a fork of this process would copy jax and threads. The spawner forks
a worker in milliseconds. Spawner and workers read an end of file if this process is killed.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from score_jax.rewards.workers.per_process import PerProcess

START_SEC = 120.0
ALGEBRA_QUESTIONS = 2_000  # then a worker is replaced: the caches of the algebra library grow
MAX_WORKERS = 8
ALGEBRA = ("answers.algebra",)  # the module whose `serve` a spawner runs, and its arguments

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); import importlib; "
    "module = importlib.import_module('score_jax.rewards.' + sys.argv[3]); "
    "module.serve(int(sys.argv[2]), *sys.argv[4:])"
)


class SpawnerGone(RuntimeError):
    """The spawner ended, so no worker can be started or killed."""


class SpawnerFailed(RuntimeError):
    """The spawner cannot start; the message is its own."""


class Worker:
    """A process that answers one question at a time."""

    def __init__(self, pid: int, questions: socket.socket):
        self.pid = pid
        self.questions = questions
        self.asked = 0

    def ask(self, *question: Any) -> None:
        """Sends a question. Whether the worker is dead shows when its answer is read."""
        self.asked += 1
        with contextlib.suppress(OSError):
            self.questions.sendall(json.dumps(question).encode() + b"\n")

    def answer(self) -> str:
        """The line that it answers; "crash" if it died."""
        reply = _line(self.questions)
        return reply.decode().strip() if reply else "crash"


class Pool:
    """Workers, and the spawner that forks them. A taken worker is given back or discarded."""

    def __init__(self, size: int, work: tuple[str, ...] = ALGEBRA, given: bytes = b""):
        """Args:

        given: what the spawner reads on its standard input.
        """
        self.size = size  # workers at most
        self._work = work
        self._changed = threading.Condition()
        self._control_lock = threading.Lock()
        self._idle: list[Worker] = []
        self._count = 0  # workers that live or are being started
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the pool)
        self._spawner = subprocess.Popen(
            [sys.executable, "-I", "-c", _MAIN, _PACKAGE_ROOT, str(theirs.fileno()), *work],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the trainer, which still grades while it saves
        )
        theirs.close()
        if self._spawner.stdin:
            with contextlib.suppress(BrokenPipeError), self._spawner.stdin as stdin:
                stdin.write(given)  # if it is gone, the control socket says so
        self._control = ours
        self._control.settimeout(START_SEC)
        answer = self._reply()
        ready, _, says = answer.decode().partition(" ")
        if ready != "ready":
            self.close()
            raise SpawnerFailed(json.loads(answer))
        self.says = says.strip()  # what the module's `serve` tells

    def close(self) -> None:
        """Ends all processes; a second call does nothing."""
        self._control.close()  # the spawner reads the end of file, kills its workers and ends
        try:
            self._spawner.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._spawner.kill()
            self._spawner.wait()
        for worker in self._idle:
            worker.questions.close()
        self._idle.clear()
        self._log.close()

    def forget(self) -> None:
        """For a forked child: closes its descriptors; the processes are the parent's."""
        self._control.close()
        for worker in self._idle:
            worker.questions.close()
        self._log.close()
        self._spawner.returncode = 0  # the parent waits for it

    def take(self, block: bool) -> Worker | None:
        """An idle or a new worker; None if all are taken and `block` is false."""
        with self._changed:
            while not self._idle and self._count >= self.size:
                if not block:
                    return None
                self._changed.wait()
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                return Worker(int(self._command(b"S", [theirs.fileno()])), ours)
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def give_back(self, worker: Worker) -> None:
        """Makes a worker that has answered available again."""
        if self._work == ALGEBRA and worker.asked >= ALGEBRA_QUESTIONS:
            self.discard(worker)
            return
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()

    def discard(self, worker: Worker) -> None:
        """Kills a worker, so that another may be started."""
        worker.questions.close()
        try:
            self._command(b"K%d" % worker.pid, [])
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify()

    def _command(self, command: bytes, fds: list[int]) -> bytes:
        with self._control_lock:
            with contextlib.suppress(OSError):  # _reply then finds that the spawner is gone
                socket.send_fds(self._control, [command], fds)
            return self._reply()

    def _reply(self) -> bytes:
        """One line from the spawner. Raises: SpawnerGone."""
        reply = _line(self._control)
        if not reply:
            self._log.seek(0)
            raise SpawnerGone(
                f"The process of score_jax.rewards.{self._work[0]} ended, or said nothing for "
                f"{START_SEC:.0f} s, so answers that need it cannot be graded. It last printed:\n"
                + self._log.read().decode(errors="replace")[-2000:]
            )
        return reply


def _line(end: socket.socket) -> bytes:
    """A line with its end; empty if the other side is gone, or sends nothing in time."""
    with contextlib.suppress(OSError), end.makefile("rb") as lines:
        line = lines.readline()
        return line if line.endswith(b"\n") else b""
    return b""


_pools: PerProcess[Pool] = PerProcess()
close = _pools.close  # of one pool, or of all


def shared(work: tuple[str, ...] = ALGEBRA, size: int = 0, given: bytes = b"") -> Pool:
    """The pool of this process for that work, started on first use.

    work: a module of score_jax.rewards with a function serve(control_fd, *arguments), and these.
    size: workers at most; 0: one for each CPU, 2 to MAX_WORKERS.
    given: what `serve` reads on standard input.
    Raises: SpawnerFailed.
    """
    size = size or max(2, min(MAX_WORKERS, os.cpu_count() or 1))
    if given:  # a function that was given again under its name, as in a notebook's cell
        _pools.keep(lambda key: key[0] != work or key[2] == given)
    return _pools.get((work, size, given), lambda: Pool(size, work, given))
