"""The process between the trainer and the sandbox: runs many programs, each under its deadline.

Each program gets a process (guest.py), forked by the forkserver, and a tester (tester_process.py).
start.py starts the scheduler in an empty environment (launch.py). The scheduler runs no code of a
model, and does not interpret what a model wrote, so it always answers. It keeps the clock: at its
deadline a program is killed, whatever it does. fairness.py decides who may use the cores.

Together programs may hold half of the free memory; beyond that the largest is killed.

A client's connection carries JSON lines: {"id", "job": {…}, "timeout_sec", "overtime"} →
{"id", "reason"}. When it closes, its programs are killed. When the control socket closes, all
programs are killed and the scheduler ends.
"""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import select
import selectors
import signal
import socket
import time
from collections import deque
from pathlib import Path

from score_jax.rewards.sandbox import fairness, scarce
from score_jax.rewards.sandbox.launch import DYING_SEC, Forkserver, ForkserverGone
from score_jax.rewards.sandbox.linux import proc
from score_jax.rewards.sandbox.packages import Packages, allow
from score_jax.rewards.sandbox.tester import Job
from score_jax.rewards.sandbox.tester_process import TesterProcess

MAX_RUNNING = 256
OPEN_FILES = 8192  # each program that runs takes two descriptors, and an idle tester one
IDLE_TESTERS = 4  # per core: those that wait for work; more are ended
POLL_SEC, SHORT_POLL_SEC = 0.1, 0.002


@dataclasses.dataclass(eq=False)
class _Client:
    connection: socket.socket
    batch: fairness.Batch = dataclasses.field(default_factory=fairness.Batch)
    unread: bytes = b""


@dataclasses.dataclass(eq=False)
class _Request:
    """A program that a client wants to have run."""

    client: _Client
    id: int
    job: Job
    timeout_sec: float
    overtime: bool
    repeated: bool = False  # its tester died, so it is run a second time


@dataclasses.dataclass(eq=False)
class _Run:
    """A program that runs, or that was killed and is not gone yet."""

    request: _Request
    turn: fairness.Turn
    tester: TesterProcess | None  # None once the tester waits for other work
    reason: str = ""  # once it is over; see Scheduler._stop
    gone_by: float = 0.0  # once it is killed: until when the scheduler waits for its end


class Scheduler:
    """The event loop."""

    def __init__(self, control: socket.socket, kind: str, packages: Packages):
        self._control = control
        self._confined = kind, packages
        self._forkserver = Forkserver(kind, packages)
        self._waiting: deque[_Request] = deque()
        self._running: list[_Run] = []
        self._dying: list[_Run] = []  # killed, and not gone yet
        self._clients: list[_Client] = []
        self._idle: list[TesterProcess] = []
        self._cores = fairness.Cores()
        self._memory_bytes = proc.free_memory_bytes() // 2
        self._memory_checked = 0.0
        self._scarce_since = 0.0  # since when the machine has no process left; 0: it has
        self._begins_at = 0.0  # when the next program may begin, where the machine had none
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Works until the control socket closes."""
        try:
            while True:
                self._begin_waiting()
                for key, _ in self._selector.select(self._patience_sec()):
                    if key.fileobj is self._control:
                        if not self._accept():
                            return
                    elif isinstance(key.data, _Client):
                        self._read(key.data)
                    elif key.data in self._dying:
                        self._settle(key.data)
                    elif key.data in self._running:
                        self._take_verdict(key.data)
                self._watch()
        finally:
            self._stop(self._running)
            self._forkserver.close()
            for run in list(self._dying):
                select.select([run.turn.process], [], [], DYING_SEC)
                self._settle(run)
            for tester in self._idle:
                tester.end()

    def _accept(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if not data:
            return False
        if not fds:  # no descriptor is left: the client reads the end of its connection
            return True
        client = _Client(socket.socket(fileno=fds[0]))
        self._clients.append(client)
        self._selector.register(client.connection, selectors.EVENT_READ, client)
        return True

    def _read(self, client: _Client) -> None:
        """Queues a client's requests; forgets a client that is gone."""
        try:
            data = client.connection.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._stop([run for run in self._running if run.request.client is client])
            self._waiting = deque(one for one in self._waiting if one.client is not client)
            self._selector.unregister(client.connection)
            client.connection.close()
            self._clients.remove(client)
            return
        *lines, client.unread = (client.unread + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            job = Job.of_fields(asked["job"])
            self._waiting.append(
                _Request(client, asked["id"], job, asked["timeout_sec"], asked["overtime"])
            )

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            if time.monotonic() < self._begins_at:
                return
            if not self._cores.has_room([run.turn for run in self._running]):
                return
            try:
                self._begin(self._waiting[0])
            except OSError as error:
                if error.errno not in scarce.SCARCE:
                    raise
                self._wait_for_more(error)
            else:
                self._waiting.popleft()
                self._scarce_since = 0.0

    def _wait_for_more(self, error: OSError) -> None:
        """Lets programs wait while the machine has no process left; gives up at last."""
        now = time.monotonic()
        self._scarce_since = self._scarce_since or now
        lasted_sec = now - self._scarce_since
        self._begins_at = now + min(max(scarce.FIRST_WAIT_SEC, lasted_sec), scarce.LONGEST_WAIT_SEC)
        if lasted_sec > scarce.PATIENCE_SEC:
            for client in {request.client for request in self._waiting}:
                with contextlib.suppress(OSError):
                    client.connection.sendall(json.dumps({"gone": str(error)}).encode() + b"\n")
            self._waiting.clear()
            self._scarce_since = self._begins_at = 0.0

    def _begin(self, request: _Request) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                process, number = self._forkserver.fork(theirs.fileno())
            except ForkserverGone:
                self._stop(self._running)
                self._forkserver.close()
                self._forkserver = Forkserver(*self._confined)
                process, number = self._forkserver.fork(theirs.fileno())
            theirs.close()
            try:
                tester = self._tester_of(request.job, ours.fileno())
            except OSError:  # the guest reads the end of its socket and ends
                os.close(process)
                raise
        turn = fairness.begin(
            request.client.batch,
            request.timeout_sec,
            request.overtime,
            process=process,
            number=number,
            tester_pid=tester.pid,
        )
        run = _Run(request, turn, tester)
        self._running.append(run)
        self._selector.register(tester.socket, selectors.EVENT_READ, run)

    def _tester_of(self, job: Job, guest: int) -> TesterProcess:
        """An idle tester, or a new one, that has begun with the job."""
        while self._idle:
            idle = self._idle.pop()
            try:
                idle.run_tests(job, guest)
                return idle
            except OSError:  # killed from outside
                idle.end()
        new = TesterProcess()
        new.run_tests(job, guest)
        return new

    def _take_verdict(self, run: _Run) -> None:
        assert run.tester
        reason, reusable = run.tester.verdict()
        if reason or run.request.repeated:
            self._stop([run], reason or "error", keep_testers=reusable)
        else:  # the tester was killed from outside, or by what the program sent
            run.request.repeated = True
            self._stop([run])

    def _patience_sec(self) -> float | None:
        """How long the event loop may sleep; None: until something arrives."""
        now = time.monotonic()
        waits = bool(self._waiting) and now < self._begins_at
        if not self._running and not self._dying and not waits:
            return None
        due = [self._begins_at] if waits else []
        due += [self._cores.next_look(run.turn) for run in self._running]
        due += [run.gone_by for run in self._dying]
        return max(SHORT_POLL_SEC, min(*due, now + POLL_SEC) - now)

    def _watch(self) -> None:
        """Keeps deadlines, the shares of the cores, and memory."""
        now = time.monotonic()
        others_wait = bool(self._waiting) and len(self._running) < MAX_RUNNING
        self._cores.share([run.turn for run in self._running], now, others_wait=others_wait)
        if late := [run for run in self._running if fairness.is_late(run.turn, now)]:
            self._stop(late, "timeout")
        for run in [run for run in self._dying if now >= run.gone_by]:
            self._settle(run)
        if self._running and now >= self._memory_checked + POLL_SEC:
            self._memory_checked = now
            held = {run: proc.held_bytes(run.turn.pids) for run in self._running}
            while sum(held.values()) > self._memory_bytes:
                largest = max(held, key=lambda run: held[run])
                del held[largest]
                self._stop([largest], "memory")

    def _stop(self, runs: list[_Run], reason: str = "", *, keep_testers: bool = False) -> None:
        """Kills programs and, unless they are kept, their testers.

        reason: of their grades; empty if they are to be repeated, or their client is gone.
        Their end is not waited for here: where a hundred programs use up the cores at low priority,
        each takes its time to die.
        """
        for run in list(runs):
            assert run.tester
            run.reason = reason
            self._selector.unregister(run.tester.socket)
            with contextlib.suppress(ProcessLookupError):
                run.turn.send(signal.SIGKILL)
            room = len(self._idle) < IDLE_TESTERS * self._cores.number
            if keep_testers and not run.turn.lowered and room:
                self._idle.append(run.tester)
                run.tester = None
            else:
                run.tester.kill()
            run.gone_by = time.monotonic() + DYING_SEC
            self._running.remove(run)
            self._dying.append(run)
            self._selector.register(run.turn.process, selectors.EVENT_READ, run)

    def _settle(self, run: _Run) -> None:
        """Once a program is gone: sends the reason, or queues the program again."""
        self._dying.remove(run)
        self._selector.unregister(run.turn.process)
        os.close(run.turn.process)
        if run.tester:
            run.tester.end()
        client = run.request.client
        if run.reason:
            answer = json.dumps({"id": run.request.id, "reason": run.reason}) + "\n"
            with contextlib.suppress(OSError):  # the end of a client's connection is read later
                client.connection.sendall(answer.encode())
        elif client in self._clients:
            self._waiting.appendleft(run.request)


def main(control_fd: int, kind: str, packages: str = "[]") -> None:
    """Runs a scheduler; says "ready", or "failed: why", on the control socket."""
    found = Packages.of_text(packages)
    allow(found)  # for the testers
    control = socket.socket(fileno=control_fd)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # so that Linux spares the trainer
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        scheduler = Scheduler(control, kind, found)
    except (ForkserverGone, OSError) as error:
        control.sendall(f"failed: {error}\n".encode())
        return
    control.sendall(b"ready\n")
    gc.freeze()  # so that a collection in a tester leaves the shared pages shared
    scheduler.serve()
