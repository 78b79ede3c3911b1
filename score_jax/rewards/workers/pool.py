"""Processes that may hang: a hatchery started once, and lanes forked from it, to be killed.

There is one pool for algebra (algebra.py), and one for a reward function of the user's own
(functions.py). The hatchery (spawner.py) is started by `subprocess` on first use, never by forking
this process, which runs jax and threads. It forks a lane in milliseconds. Usable from any thread; a
forked child of this process starts a pool of its own. Everything ends with this process: closed at
exit, and by end of file on the control socket if it is killed.
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
LANE_QUESTIONS = 2_000  # then a lane is replaced: the symbolic library's caches grow
MAX_LANES = 8
ALGEBRA = ("answers.algebra",)  # the module whose `serve` a hatchery runs, and its arguments

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); import importlib; "
    "module = importlib.import_module('score_jax.rewards.' + sys.argv[3]); "
    "module.serve(int(sys.argv[2]), *sys.argv[4:])"
)


class HatcheryGone(RuntimeError):
    """The hatchery ended, so no lane can be started or killed."""


class HatcheryRefused(RuntimeError):
    """The hatchery says why it cannot work."""


class Lane:
    """One process that answers one question at a time."""

    def __init__(self, pid: int, questions: socket.socket):
        self.pid = pid
        self.questions = questions
        self.asked = 0

    def ask(self, *question: Any) -> None:
        """Sends a question; a lane that is dead shows it when its answer is read."""
        self.asked += 1
        with contextlib.suppress(OSError):
            self.questions.sendall(json.dumps(question).encode() + b"\n")

    def answer(self) -> str:
        """The line that came back; "crash" if the lane died."""
        reply = _line(self.questions)
        return reply.decode().strip() if reply else "crash"


class Pool:
    """The lanes and the hatchery they come from. A taken lane is given back or discarded."""

    def __init__(self, lanes: int, work: tuple[str, ...] = ALGEBRA):
        self.lanes = lanes
        self._work = work
        self._changed = threading.Condition()
        self._control_lock = threading.Lock()
        self._idle: list[Lane] = []
        self._count = 0  # lanes alive or being hatched
        ours, theirs = socket.socketpair()
        numbers = [_PACKAGE_ROOT, str(theirs.fileno())]
        command = [sys.executable, "-I", "-c", _MAIN, *numbers, *work]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the pool)
        self._hatchery = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for the trainer, which still grades while it saves
        )
        theirs.close()
        self._control = ours
        self._control.settimeout(START_SEC)
        answer = self._reply()
        if answer.strip() != b"ready":
            self.close()
            raise HatcheryRefused(json.loads(answer))

    def close(self) -> None:
        """Ends all processes; a second call does nothing."""
        self._control.close()  # the hatchery reads the end of file, kills its lanes and ends
        try:
            self._hatchery.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._hatchery.kill()
            self._hatchery.wait()
        for lane in self._idle:
            lane.questions.close()
        self._idle.clear()
        self._log.close()

    def forget(self) -> None:
        """For a forked child: closes its descriptors; the processes are the parent's."""
        self._control.close()
        for lane in self._idle:
            lane.questions.close()
        self._log.close()
        self._hatchery.returncode = 0  # not ours to wait for

    def take(self, block: bool) -> Lane | None:
        """An idle or a new lane; None if all are taken and `block` is false."""
        with self._changed:
            while not self._idle and self._count >= self.lanes:
                if not block:
                    return None
                self._changed.wait()
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            return self._hatch()
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def give_back(self, lane: Lane) -> None:
        """For a lane that has answered: it may be taken again."""
        if lane.asked >= LANE_QUESTIONS:
            self.discard(lane)
            return
        with self._changed:
            self._idle.append(lane)
            self._changed.notify()

    def discard(self, lane: Lane) -> None:
        """Kills a lane; the next one taken is new."""
        lane.questions.close()
        try:
            self._command(b"K%d" % lane.pid, [])
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify()

    def _hatch(self) -> Lane:
        ours, theirs = socket.socketpair()
        with theirs:
            return Lane(int(self._command(b"L", [theirs.fileno()])), ours)

    def _command(self, command: bytes, fds: list[int]) -> bytes:
        with self._control_lock:
            with contextlib.suppress(OSError):  # a hatchery that is gone shows it by its reply
                socket.send_fds(self._control, [command], fds)
            return self._reply()

    def _reply(self) -> bytes:
        """One line from the hatchery. Raises: HatcheryGone."""
        reply = _line(self._control)
        if not reply:
            self._log.seek(0)
            raise HatcheryGone(
                f"The process of score_jax.rewards.{self._work[0]} ended, so no more answers can "
                "be graded that need it. Its last words:\n"
                + self._log.read().decode(errors="replace")[-2000:]
            )
        return reply


def _line(end: socket.socket) -> bytes:
    """A line with its end; empty where the other side is gone or says nothing in time."""
    line = b""
    while not line.endswith(b"\n"):
        data = b""
        with contextlib.suppress(OSError):
            data = end.recv(64)
        if not data:
            return b""
        line += data
    return line


_pools: PerProcess[Pool] = PerProcess()
close = _pools.close  # of one pool, or of all


def shared(work: tuple[str, ...] = ALGEBRA) -> Pool:
    """The pool of this process for that work, started on first use.

    work: a module of this folder with a function serve(control_fd, *arguments), and the arguments.
    Raises: HatcheryRefused.
    """
    return _pools.get(work, lambda: Pool(max(2, min(MAX_LANES, os.cpu_count() or 1)), work))
