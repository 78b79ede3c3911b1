"""The processes that do algebra: a hatchery started once, and lanes forked from it, to be killed.

The hatchery (symbolic.py) is started by `subprocess` on first use, never by forking this process,
which runs jax and threads. It forks a lane in milliseconds. Usable from any thread; a forked child
of this process starts a pool of its own. Everything ends with this process: closed at exit, and by
end of file on the control socket if it is killed.
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

START_SEC = 120.0
LANE_QUESTIONS = 2_000  # then a lane is replaced: the symbolic library's caches grow
MAX_LANES = 8

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from score_jax.rewards.symbolic import serve; serve(int(sys.argv[2]))"
)


class HatcheryGone(RuntimeError):
    """The hatchery ended, so no lane can be started or killed."""


class Lane:
    """One process that answers one question at a time."""

    def __init__(self, pid: int, questions: socket.socket):
        self.pid = pid
        self.questions = questions
        self.asked = 0

    def ask(self, gold: str, answer: str) -> None:
        """Sends a question; a lane that is dead shows it when its answer is read."""
        self.asked += 1
        with contextlib.suppress(OSError):
            self.questions.sendall(json.dumps((gold, answer)).encode() + b"\n")

    def answer(self) -> str:
        """The reason that came back; "crash" if the lane died."""
        reply = b""
        while not reply.endswith(b"\n"):
            try:
                data = self.questions.recv(64)
            except OSError:
                return "crash"
            if not data:
                return "crash"
            reply += data
        return reply.decode().strip()


class Pool:
    """The lanes and the hatchery they come from. A taken lane is given back or discarded."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self._changed = threading.Condition()
        self._control_lock = threading.Lock()
        self._idle: list[Lane] = []
        self._count = 0  # lanes alive or being hatched
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-c", _MAIN, _PACKAGE_ROOT, str(theirs.fileno())]
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
        self._reply()

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
        reply = b""
        while not reply.endswith(b"\n"):
            try:
                data = self._control.recv(64)
            except OSError:
                data = b""
            if not data:
                self._log.seek(0)
                raise HatcheryGone(
                    "The process that checks symbolic answers (score_jax.rewards.symbolic) ended, "
                    "so answers that are not plain numbers cannot be graded. Its last words:\n"
                    + self._log.read().decode(errors="replace")[-2000:]
                )
            reply += data
        return reply


_pool: Pool | None = None
_pool_lock = threading.Lock()


def shared() -> Pool:
    """The pool of this process, started on first use."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool(lanes=max(2, min(MAX_LANES, os.cpu_count() or 1)))
        return _pool


def close(only: Pool | None = None) -> None:
    """Ends the shared pool's processes; the next use starts new ones.

    only: does nothing unless this is the shared pool, so that threads that meet the end of the same
    pool do not close its successor.
    """
    global _pool
    with _pool_lock:
        pool = _pool
        if pool is None or only not in (None, pool):
            return
        _pool = None
    with contextlib.suppress(OSError):
        pool.close()


def _after_fork_in_child() -> None:
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    pool, _pool = _pool, None
    if pool is not None:
        pool.forget()


atexit.register(close)
os.register_at_fork(after_in_child=_after_fork_in_child)
