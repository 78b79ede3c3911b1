"""The process between the trainer and the sandbox: gives each program a checker and a callee.

sandbox.py starts it by `subprocess`, with an empty environment. It runs no code of a model and
reads nothing a model wrote but to pass it on; so it always answers, and keeps the clock: at its
deadline a program is killed, whatever it does.

Programs that never end delay the others little. Of those that began less than SLICE_SEC ago as
many run as there are cores; those that need longer are slow, and go on beside the next ones, up to
MAX_RUNNING at once. Where there are more slow ones than cores they are stopped, all of them, until
the last one that waits has begun and had its slice, and then go on at low priority.

The deadline is wall clock. On a busy machine that would make rewards depend on the load, so in
batches a program may go on past it for as long as it has waited for a core or was stopped
(OVERTIME). A batch with many slow programs (MANY) gets one deadline for all of them, from when the
first began: a hundred that hang delay a batch as long as one does.

Together programs may hold half of the free memory; beyond that the largest is killed.

A client's connection carries JSON lines: {"id", "job": {…}, "timeout_sec", "overtime"} →
{"id", "reason"}. When it closes, its programs are killed; when the control socket closes, so is
everything.
"""

import contextlib
import dataclasses
import gc
import json
import math
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from pathlib import Path

from score_jax.rewards.sandbox import tester
from score_jax.rewards.sandbox.tester_process import Checker

SLICE_SEC = 0.15
SHORT_SLICE_SEC = 0.015  # while there are more slow ones than cores; honest ones take some 5 ms
MAX_RUNNING = 256
PATIENCE = 4  # a program that waits for a core keeps its place for so many slices
LOW_PRIORITY = 19  # as of nice; of slow programs where there are more than cores
MANY = 4  # slow programs of a batch per core; beyond that they share one deadline
LEAST = 0.5  # of its deadline that the last one to begin has, where they share one
OVERTIME = 4.0  # at most so many times its deadline does a program last that waits for a core
SHARED_BYTES = 32 << 20  # what a fork shares with its parent, and is counted as its own
POLL_SEC, SHORT_POLL_SEC = 0.1, 0.002
DYING_SEC = 5.0  # a killed program that is not gone by then is not waited for

_ZYGOTE = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from score_jax.rewards.sandbox import forkserver; "
    "fd, tier = sys.argv[2:]; del sys.path[0], sys.argv[1:]; forkserver.main(int(fd), tier)"
)
# No site-packages, no folder of the user; the environment is empty but for the hash seed, so that
# the order of a set, and with it the reward, repeats.
PYTHON = (sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8")
ENVIRONMENT = {"PYTHONHASHSEED": "0"}


class ZygoteGone(RuntimeError):
    """The process that programs are forked from cannot be started, or ended."""


class Zygote:
    """A confined forkserver.py, running."""

    def __init__(self, tier: str, package_root: str):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*PYTHON, "-c", _ZYGOTE, package_root, str(theirs.fileno()), tier],
                pass_fds=[theirs.fileno()],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._control = ours
        with ours.makefile("rb", buffering=0) as lines:
            answer = lines.readline().decode().strip()
        if answer != "ready":
            self.close()
            raise ZygoteGone(answer.removeprefix("failed: ") or "it ended while starting")

    def fork(self, callee_socket: int) -> int:
        """Forks a callee that serves behind that socket; returns a descriptor of the process."""
        try:
            socket.send_fds(self._control, [b"J"], [callee_socket])
            data, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise ZygoteGone(str(error)) from error
        if not data or not fds:
            raise ZygoteGone("it ended")
        return fds[0]

    def close(self) -> None:
        """Ends it and all its programs; returns when it is gone."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._process.kill()
        self._process.wait()
        self._control.settimeout(DYING_SEC)
        with contextlib.suppress(OSError):  # in namespaces a child of it lasts a moment longer
            while self._control.recv(64):
                pass
        self._control.close()


@dataclasses.dataclass(eq=False)
class _Client:
    connection: socket.socket
    unread: bytes = b""
    crowded: bool = False  # many of its programs are slow, so these share one deadline
    first_slow: float = math.inf  # when the first of its slow programs that still run began
    last_began: float = 0.0


@dataclasses.dataclass(eq=False)
class _Run:
    """A program that waits for its turn or runs."""

    client: _Client
    id: int
    job: tester.Job
    timeout_sec: float
    overtime: bool
    began: float = 0.0
    ends: float = 0.0  # when it is killed, or looked at again
    beside: bool = False  # runs beside those that began last
    slow: bool = False  # has used its slice, and not by waiting for a core
    lowered: bool = False
    stopped: float = 0.0  # since when; 0: it runs
    stopped_sec: float = 0.0  # how long it was stopped before
    again: bool = False  # begun a second time
    checker: Checker | None = None
    callee: int = -1  # a descriptor of the process
    callee_pid: int = 0  # its number here; 0 if it cannot be told
    waited_sec: float = 0.0  # how long its processes had waited for a core before it began
    reason: str = ""  # once it is over; none if it waits for its turn again, or nobody asks

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of its processes."""
        return (self.callee_pid, self.checker.pid) if self.checker else ()


class Warden:
    """The event loop."""

    def __init__(self, control: socket.socket, tier: str, package_root: str):
        self._control = control
        self._tier, self._package_root = tier, package_root
        self._zygote = Zygote(tier, package_root)
        self._waiting: deque[_Run] = deque()
        self._running: list[_Run] = []
        self._dying: list[_Run] = []  # killed, and not gone yet
        self._clients: list[_Client] = []
        self._idle: list[Checker] = []
        self._cores = len(os.sched_getaffinity(0))
        self._memory_bytes = _free_memory_bytes() // 2
        self._slice_sec = SLICE_SEC
        self._looked = 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Works until the control socket closes."""
        try:
            while True:
                self._start()
                for key, _ in self._selector.select(self._patience_sec()):
                    if key.fileobj is self._control:
                        if not self._accept():
                            return
                    elif isinstance(key.data, _Client):
                        self._read(key.data)
                    elif key.data in self._dying:
                        self._bury(key.data)
                    elif key.data in self._running:
                        reason, goes_on = key.data.checker.verdict()
                        if reason or key.data.again:
                            self._finish([key.data], reason or "error", keep_checkers=goes_on)
                        else:  # its checker was killed from outside, or by what it was sent
                            key.data.again = True
                            self._stop([key.data])
                self._watch()
        finally:
            self._stop(self._running)
            self._zygote.close()
            for run in list(self._dying):
                select.select([run.callee], [], [], DYING_SEC)
                self._bury(run)
            for one in self._idle:
                one.end()

    def _accept(self) -> bool:
        _, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if not fds:
            return False
        client = _Client(socket.socket(fileno=fds[0]))
        self._clients.append(client)
        self._selector.register(client.connection, selectors.EVENT_READ, client)
        return True

    def _read(self, client: _Client) -> None:
        """Queues what a client asks; forgets one that is gone."""
        try:
            data = client.connection.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._stop([run for run in self._running if run.client is client])
            self._waiting = deque(run for run in self._waiting if run.client is not client)
            self._selector.unregister(client.connection)
            client.connection.close()
            self._clients.remove(client)
            return
        *lines, client.unread = (client.unread + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            fields = asked["job"]
            job = tester.Job(**{**fields, "tests": tuple(fields["tests"])})
            self._waiting.append(
                _Run(client, asked["id"], job, asked["timeout_sec"], asked["overtime"])
            )

    def _start(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            if sum(not run.beside for run in self._running) >= self._cores:
                return
            self._begin(self._waiting.popleft())

    def _begin(self, run: _Run) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                run.callee = self._zygote.fork(theirs.fileno())
            except ZygoteGone:
                self._stop(self._running)
                self._zygote.close()
                self._zygote = Zygote(self._tier, self._package_root)
                run.callee = self._zygote.fork(theirs.fileno())
            theirs.close()
            run.checker = self._judge(run.job, ours.fileno())
        run.began = time.monotonic()
        run.ends = run.began + run.timeout_sec
        run.callee_pid = _pid_of(run.callee)
        run.waited_sec = 0.0
        run.waited_sec = _waited_sec(run)
        run.beside = run.slow = run.lowered = False
        run.stopped = run.stopped_sec = 0.0
        run.client.last_began = run.began
        self._running.append(run)
        self._selector.register(run.checker.socket, selectors.EVENT_READ, run)

    def _judge(self, job: tester.Job, box: int) -> Checker:
        """Gives a job to a checker that waits, or to a new one."""
        while self._idle:
            waiting = self._idle.pop()
            try:
                waiting.judge(job, box)
                return waiting
            except OSError:  # killed from outside
                waiting.end()
        new = Checker()
        new.judge(job, box)
        return new

    def _patience_sec(self) -> float | None:
        if not self._running and not self._dying:
            return None
        now = time.monotonic()
        ends = [
            run.ends if run.beside else min(run.ends, run.began + self._slice_sec)
            for run in self._running
        ]
        ends += [run.ends for run in self._dying]
        return max(SHORT_POLL_SEC, min(*ends, now + POLL_SEC) - now)

    def _watch(self) -> None:
        """Keeps deadlines, priorities and memory."""
        now = time.monotonic()
        for run in self._running:
            if not run.slow and now >= run.began + self._slice_sec:
                run.slow = now - run.began - _waited_sec(run) >= self._slice_sec
                run.beside = run.slow or now >= run.began + PATIENCE * self._slice_sec
        self._make_room(now)
        if late := [run for run in self._running if self._is_late(run, now)]:
            self._finish(late, "timeout")
        for run in [run for run in self._dying if now >= run.ends]:
            self._bury(run)
        if self._running and now >= self._looked + POLL_SEC:
            self._looked = now
            held = {run: _held_bytes(run) for run in self._running}
            while sum(held.values()) > self._memory_bytes:
                largest = max(held, key=lambda run: held[run])
                del held[largest]
                self._finish([largest], "memory")

    def _make_room(self, now: float) -> None:
        """Where slow programs are more than cores, those that wait begin before they go on."""
        slow = [run for run in self._running if run.slow]
        crowded = len(slow) > self._cores
        self._slice_sec = SHORT_SLICE_SEC if crowded else SLICE_SEC
        stop = crowded and bool(self._waiting) and len(self._running) < MAX_RUNNING
        number = Counter(run.client for run in slow)
        # Of those that still run: slow ones that have ended say nothing of a crowd that came later.
        first: dict[_Client, float] = {}
        for run in slow:
            first[run.client] = min(first.get(run.client, run.began), run.began)
        for run in slow:
            if run.overtime:
                client = run.client
                client.crowded |= number[client] > MANY * self._cores
                client.first_slow = first[client]
                self._stop_or_go_on(run, stop, now)
            if crowded and not run.lowered:
                self._lower_priority(run)

    def _stop_or_go_on(self, run: _Run, stop: bool, now: float) -> None:
        if stop == bool(run.stopped):
            return
        run.stopped_sec += now - run.stopped if run.stopped else 0.0
        run.stopped = now if stop else 0.0
        assert run.checker
        number = signal.SIGSTOP if stop else signal.SIGCONT
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(run.callee, number)
            os.kill(run.checker.pid, number)

    def _is_late(self, run: _Run, now: float) -> bool:
        """Whether a program has had its time; if it is owed more, when to look again is set."""
        client = run.client
        if run.slow and run.overtime and client.crowded:
            together = client.first_slow + run.timeout_sec
            return now >= max(together, client.last_began + LEAST * run.timeout_sec)
        if now < run.ends:
            return False
        if not _is_owed_time(run, now):
            return True
        run.ends = now + POLL_SEC
        return False

    def _lower_priority(self, run: _Run) -> None:
        run.lowered = True
        with contextlib.suppress(OSError):
            if run.checker:
                os.setpriority(os.PRIO_PROCESS, run.checker.pid, LOW_PRIORITY)
            if run.callee_pid:  # the leader of a group of its own, which holds its threads
                os.setpriority(os.PRIO_PGRP, run.callee_pid, LOW_PRIORITY)

    def _finish(self, runs: list[_Run], reason: str, *, keep_checkers: bool = False) -> None:
        for run in runs:
            run.reason = reason
        self._stop(runs, keep_checkers=keep_checkers)

    def _stop(self, runs: list[_Run], *, keep_checkers: bool = False) -> None:
        """Kills programs and, unless they are kept, their checkers.

        Nobody waits here until they are gone: where a hundred use up the cores at low priority,
        each takes its time to die.
        """
        for run in list(runs):
            assert run.checker
            self._selector.unregister(run.checker.socket)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(run.callee, signal.SIGKILL)
            if keep_checkers and not run.lowered and len(self._idle) < MANY * self._cores:
                self._idle.append(run.checker)
                run.checker = None
            else:
                run.checker.kill()
            run.ends = time.monotonic() + DYING_SEC
            self._running.remove(run)
            self._dying.append(run)
            self._selector.register(run.callee, selectors.EVENT_READ, run)

    def _bury(self, run: _Run) -> None:
        """What is left to do when a program is gone: tells the reason, or has it run again."""
        self._dying.remove(run)
        self._selector.unregister(run.callee)
        os.close(run.callee)
        if run.checker:
            run.checker.end()
            run.checker = None
        if run.reason:
            answer = json.dumps({"id": run.id, "reason": run.reason}) + "\n"
            with contextlib.suppress(OSError):  # a client that is gone is read as such later
                run.client.connection.sendall(answer.encode())
        elif run.client in self._clients:
            self._waiting.appendleft(run)


def _pid_of(process: int) -> int:
    """The number, here, of a process known by a descriptor; 0 if it cannot be told."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/self/fdinfo/{process}").read_text().splitlines():
            if line.startswith("Pid:"):
                return max(0, int(line.split()[1]))
    return 0


def _is_owed_time(run: _Run, now: float) -> bool:
    """Whether a program at its deadline has spent it waiting for a core."""
    lasted = now - run.began
    if not run.overtime or lasted >= OVERTIME * run.timeout_sec:
        return False
    stopped_sec = run.stopped_sec + (now - run.stopped if run.stopped else 0.0)
    return lasted - stopped_sec - _waited_sec(run) < run.timeout_sec


def _waited_sec(run: _Run) -> float:
    """How long a program and its checker were ready to run and did not."""
    waited_ns = 0
    for pid in run.pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return waited_ns / 1e9 - run.waited_sec


def _held_bytes(run: _Run) -> int:
    """Memory of a program and its checker, beyond what they share with those they came from."""
    held = 0
    for pid in run.pids:
        with contextlib.suppress(OSError, ValueError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kinds = [one for one in lines if one.startswith(("RssAnon:", "RssShmem:"))]
            held += max(0, 1024 * sum(int(one.split()[1]) for one in kinds) - SHARED_BYTES)
    return held


def _free_memory_bytes() -> int:
    free = 4 << 30
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(one for one in lines if one.startswith("MemAvailable")).split()[1])
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            free = min(free, int((Path("/sys/fs/cgroup") / path).read_text()))
    return free


def main(control_fd: int, tier: str, package_root: str) -> None:
    """Runs a warden; says "ready", or "failed: why", on the control socket."""
    control = socket.socket(fileno=control_fd)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # rather this than the trainer
    try:
        warden = Warden(control, tier, package_root)
    except (ZygoteGone, OSError) as error:
        control.sendall(f"failed: {error}\n".encode())
        return
    control.sendall(b"ready\n")
    gc.freeze()  # so that a collection in a checker leaves the shared pages shared
    warden.serve()
