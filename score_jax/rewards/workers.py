"""A pool of processes that do algebra under a deadline; a hanging one is killed and replaced.

One hatchery process (symbolic.py) is started by `subprocess` on first use, never by forking this process,
which runs jax and threads. It forks the lanes, which takes milliseconds. Callable from any thread; a
forked child of this process starts a pool of its own. Everything ends with this process: closed at
exit, and by end of file on the control socket if it is killed.
"""

import atexit
import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

DEADLINE_SEC = 3.0
START_SEC = 120.0
LANE_QUESTIONS = 2_000  # then a lane is replaced: the symbolic library's caches grow
MAX_LANES = 8

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from score_jax.rewards.symbolic import serve; serve(int(sys.argv[2]))"
)


class _Lane:
    """One process that answers one question at a time."""

    def __init__(self, pid: int, questions: socket.socket):
        self.pid = pid
        self.questions = questions
        self.asked = 0


class Pool:
    """The lanes and the hatchery they come from. `decide` is the whole interface."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self._changed = threading.Condition()
        self._control_lock = threading.Lock()
        self._idle: list[_Lane] = []
        self._count = 0  # lanes alive or being hatched
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-c", _MAIN, _PACKAGE_ROOT, str(theirs.fileno())]
        self._log = _unlinked_file()
        self._hatchery = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # a Ctrl-C meant for the trainer must not kill what it still needs
        )
        theirs.close()
        self._control = ours
        self._control.settimeout(START_SEC)
        self._reply()

    def decide(self, pairs: Sequence[tuple[str, str]], deadline_sec: float) -> list[str]:
        """A reason for each (gold, answer); those not decided in time get "timeout".

        A question alone has the whole deadline. Of many, each first gets a small part of it, and those
        that need longer are asked again at the end; all time spent on questions that then are killed
        is at most one deadline per lane, so a batch full of hanging answers waits one deadline, not one each.
        """
        first_sec = deadline_sec if len(pairs) <= self.lanes else min(0.25, deadline_sec)
        lanes = min(self.lanes, max(1, len(pairs)))
        spare_sec = deadline_sec * lanes  # what may still be lost to questions that get killed
        reasons = ["timeout"] * len(pairs)
        waiting = deque(sorted(range(len(pairs)), key=lambda i: _weight(pairs[i][1])))
        again: deque[int] = deque()
        slice_sec = first_sec
        running: dict[int, tuple[_Lane, float]] = {}  # question → lane, moment to kill it
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or running or again:
                    if not waiting and not running:
                        waiting, again = again, deque()
                        slice_sec = spare_sec / lanes
                        if slice_sec < first_sec / 2:
                            break
                    while waiting and len(running) < lanes:
                        held = sum(
                            max(0.0, until - time.monotonic()) for _, until in running.values()
                        )
                        if spare_sec - held < min(slice_sec, first_sec) / 2:
                            if not running:
                                waiting.clear()
                            break
                        lane = self._take(block=not running)
                        if lane is None:
                            break
                        index = waiting.popleft()
                        if not _ask(lane, pairs[index]):
                            self._discard(lane)
                            reasons[index] = "crash"
                            continue
                        running[index] = (lane, time.monotonic() + min(slice_sec, spare_sec - held))
                        selector.register(lane.questions, selectors.EVENT_READ, index)
                    if not running:
                        continue
                    until = min(until for _, until in running.values())
                    if waiting and len(running) < lanes:
                        until = min(until, time.monotonic() + 0.02)  # look for a freed lane
                    ready = selector.select(max(0.0, until - time.monotonic()))
                    answered = {key.data for key, _ in ready}
                    now = time.monotonic()
                    for index, (lane, kill_at) in list(running.items()):
                        if index in answered:
                            selector.unregister(lane.questions)
                            del running[index]
                            reason = _answer(lane)
                            reasons[index] = reason
                            if reason == "crash" or lane.asked >= LANE_QUESTIONS:
                                self._discard(lane)
                            else:
                                self._give_back(lane)
                        elif now >= kill_at:
                            selector.unregister(lane.questions)
                            del running[index]
                            self._discard(lane)
                            spare_sec -= slice_sec
                            if slice_sec < deadline_sec and slice_sec == first_sec:
                                again.append(index)
            finally:
                for lane, _ in running.values():  # only on an exception, e.g. Ctrl-C
                    self._discard(lane)
        return reasons

    def close(self) -> None:
        """Ends all processes; a second call does nothing."""
        self._control.close()
        self._hatchery.kill()  # its lanes die with it
        self._hatchery.wait()
        for lane in self._idle:
            lane.questions.close()
        self._idle.clear()
        self._log.close()

    def forget(self) -> None:
        """For a forked child: closes its copies of the descriptors, the processes are the parent's."""
        self._control.close()
        for lane in self._idle:
            lane.questions.close()
        self._log.close()
        self._hatchery.returncode = 0  # not ours to wait for

    def _take(self, block: bool) -> _Lane | None:
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

    def _give_back(self, lane: _Lane) -> None:
        with self._changed:
            self._idle.append(lane)
            self._changed.notify()

    def _discard(self, lane: _Lane) -> None:
        lane.questions.close()
        try:
            with self._control_lock:
                self._control.sendall(b"K%d" % lane.pid)
                self._reply()
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify()

    def _hatch(self) -> _Lane:
        ours, theirs = socket.socketpair()
        with theirs, self._control_lock:
            socket.send_fds(self._control, [b"L"], [theirs.fileno()])
            pid = int(self._reply())
        return _Lane(pid, ours)

    def _reply(self) -> bytes:
        """One line from the hatchery. Raises: RuntimeError with its last words if it is gone."""
        reply = b""
        while not reply.endswith(b"\n"):
            data = self._control.recv(64)
            if not data:
                self._log.seek(0)
                raise RuntimeError(
                    "The process that checks symbolic answers (score_jax.rewards.symbolic) ended, so answers "
                    "that are not plain numbers cannot be graded. Its last words:\n"
                    + self._log.read().decode(errors="replace")[-2000:]
                )
            reply += data
        return reply


def _unlinked_file():
    import tempfile

    return tempfile.TemporaryFile()


def _ask(lane: _Lane, pair: tuple[str, str]) -> bool:
    lane.asked += 1
    try:
        lane.questions.sendall(json.dumps(pair).encode() + b"\n")
    except OSError:
        return False
    return True


def _answer(lane: _Lane) -> str:
    """The lane's reply; "crash" if it died."""
    reply = b""
    while not reply.endswith(b"\n"):
        try:
            data = lane.questions.recv(64)
        except OSError:
            return "crash"
        if not data:
            return "crash"
        reply += data
    return reply.decode().strip()


def _weight(answer: str) -> int:
    """Plain answers first, so that they are graded before hostile ones use up the batch's time."""
    return len(answer) + 50 * (answer.count("^") + answer.count("!") + answer.count("binom"))


_pool: Pool | None = None
_pool_lock = threading.Lock()


def decide(pairs: Sequence[tuple[str, str]], deadline_sec: float = DEADLINE_SEC) -> list[str]:
    """Reasons for (gold, answer) pairs of normalised answers, by the shared pool. See Pool.decide."""
    try:
        return _shared_pool().decide(pairs, deadline_sec)
    except (RuntimeError, OSError):
        close()  # the hatchery was killed from outside: once more with a fresh one
        return _shared_pool().decide(pairs, deadline_sec)


def _shared_pool() -> Pool:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = Pool(lanes=max(2, min(MAX_LANES, os.cpu_count() or 1)))
        return _pool


def close() -> None:
    """Ends the shared pool's processes; the next question starts new ones."""
    global _pool
    with _pool_lock:
        pool, _pool = _pool, None
    if pool is not None:
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
