"""Shares of memory and time among programs."""

import os
import subprocess
import sys
import time
import types

import pytest

from score_jax.rewards.sandbox import scheduler
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

TEST = ("assert f(1) == 1",)


def run(pid: int, **fields) -> scheduler._Run:
    mine = scheduler._Run(
        scheduler._Client(None), 0, Job("", TEST), 1.0, True, began=time.monotonic()
    )
    mine.callee_pid = pid
    mine.checker = types.SimpleNamespace(pid=pid)
    for name, value in fields.items():
        setattr(mine, name, value)
    return mine


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    sandboxes.close()


def test_only_waiting_for_a_core_earns_overtime(monkeypatch):
    sleeper = os.getpid()
    now = time.monotonic()
    monkeypatch.setattr(scheduler.Path, "read_text", lambda path: "100 0 3")
    assert not scheduler._is_owed_time(run(sleeper, began=now - 1.1), now)
    monkeypatch.setattr(scheduler.Path, "read_text", lambda path: "100 600000000 3")
    # It waited 0.6 s, and so did its checker; of 1.1 s it ran none.
    assert scheduler._is_owed_time(run(sleeper, began=now - 1.1), now)
    assert not scheduler._is_owed_time(run(sleeper, began=now - 2.3), now)
    assert not scheduler._is_owed_time(run(sleeper, began=now - 1.1, overtime=False), now)
    monkeypatch.setattr(scheduler.Path, "read_text", lambda path: "100 99000000000 3")
    assert scheduler._is_owed_time(run(sleeper, began=now - 3.9), now)
    assert not scheduler._is_owed_time(run(sleeper, began=now - 4.1), now)


def test_memory_is_counted_beyond_what_a_fork_shares():
    def holding(megabytes: int) -> subprocess.Popen:
        code = f"x = b'x' * ({megabytes} << 20); print(flush=True); input()"
        started = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert started.stdout and started.stdout.readline()
        return started

    with holding(0) as small, holding(100) as large:
        # Each is asked about twice, as program and as checker.
        assert scheduler._held_bytes(run(small.pid)) == 0
        more = scheduler._held_bytes(run(large.pid)) - 2 * (100 << 20) + 2 * scheduler.SHARED_BYTES
        assert 0 < more < 2 * (20 << 20)  # the interpreter itself
        small.kill()
        large.kill()


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_programs_that_together_hold_too_much_memory_are_killed_largest_first(kind):
    sandboxes.of_kind(kind)
    limit = 140 << 20  # more than twice the middle one: whoever breaks it is the largest by then
    control, theirs = scheduler.socket.socketpair()
    # A process of its own: what this one has loaded would count as every checker's.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from score_jax.rewards.sandbox import scheduler; "
        f"scheduler._free_memory_bytes = lambda: {2 * limit}; "
        f"scheduler.main({theirs.fileno()}, {kind!r}, sys.argv[1])"
    )
    root = str(scheduler.Path(scheduler.__file__).parents[3])
    process = subprocess.Popen([sys.executable, "-c", code, root], pass_fds=[theirs.fileno()])
    theirs.close()
    assert control.recv(64) == b"ready\n"
    hog = "x = b'x' * ({} << 20)\nimport time\ntime.sleep({})\ndef f(x): return x"
    # Of what a program holds, what it shares with the one it was forked from is not counted.
    jobs = [Job(hog.format(size, 0.6), TEST) for size in (60, 160, 2)]
    with control:
        reasons = _ask(control, jobs)
    process.wait(timeout=30)
    assert reasons == {0: "passed", 1: "memory", 2: "passed"}


def _ask(control, jobs) -> dict[int, str]:
    ours, theirs = scheduler.socket.socketpair()
    scheduler.socket.send_fds(control, [b"C"], [theirs.fileno()])
    theirs.close()
    with ours, ours.makefile("rb") as lines:
        for number, job in enumerate(jobs):
            question = {"id": number, "job": vars(job), "timeout_sec": 30.0, "overtime": True}
            ours.sendall(scheduler.json.dumps(question).encode() + b"\n")
        answers = [scheduler.json.loads(lines.readline()) for _ in jobs]
    return {answer["id"]: answer["reason"] for answer in answers}


def test_a_zygote_that_cannot_confine_itself_says_why():
    with pytest.raises(scheduler.ZygoteGone, match="it ended while starting"):
        scheduler.Zygote("namespace", "/nowhere")
