"""One tester process serves many programs, as long as it stays as it began."""

import json
import os
import signal
import socket
import sys
import threading

import pytest

from score_jax.rewards.sandbox import start, tester_process
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

RIGHT = Job("def f(x): return x", ("assert f(1) == 1",))
LARGE = Job("def f(x): return ['x' * 99] * (70 << 10)", ("assert f(1) == 1",))  # 7 MB as sent


@pytest.fixture(scope="module")
def box():
    running = start.Sandbox("none")
    yield running
    running.close()


def idle_after(box: start.Sandbox, job: Job, reason: str) -> list[int]:
    """The processes that wait for the next program after that one."""
    assert box.run([job], 0.5 if reason == "timeout" else 30.0) == [reason]
    return sandboxes.testers_of(box)


def test_programs_one_after_another_share_a_tester(box):
    first = idle_after(box, RIGHT, "passed")
    assert len(first) == 1
    for job, reason in (
        (Job("def f(x): return 2", RIGHT.tests), "failed"),
        (Job("def f(x", RIGHT.tests), "syntax"),
        (Job("import os; os._exit(0)", RIGHT.tests), "crash"),
        (Job("def f(x): raise SystemExit", RIGHT.tests), "exit"),
        (Job("import math\ndef f(x): return math.pi", ("assert f(1) == math.pi",)), "passed"),
    ):
        assert idle_after(box, job, reason) == first


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (LARGE, "failed"),
        (Job(RIGHT.program, ("math.pi = f(3)", "assert math.pi == 3")), "passed"),
        (Job(RIGHT.program, ("random.seed(1)", "assert f(1)")), "passed"),
    ],
)
def test_a_tester_that_may_have_changed_is_replaced(box, job, reason):
    before = idle_after(box, RIGHT, "passed")
    assert not set(idle_after(box, job, reason)) & set(before)
    assert box.run([Job(RIGHT.program, ("assert f(3) < math.pi",))], 30.0) == ["passed"]


def test_chance_in_tests_is_the_same_for_every_program(box):
    job = Job(RIGHT.program, ("assert f(random.random()) == 0.8444218515250481",))  # of seed 0
    assert box.run([job, RIGHT, job], 30.0) == ["passed"] * 3


def test_a_tester_killed_at_a_deadline_is_replaced(box):
    before = idle_after(box, RIGHT, "passed")
    hanging = Job("def f(x):\n    while True: yield x", ("assert list(f(1))",))
    assert not set(idle_after(box, hanging, "timeout")) & set(before)
    assert box.run([RIGHT], 30.0) == ["passed"]


def test_a_tester_killed_from_outside_costs_no_reward(box):
    for pid in idle_after(box, RIGHT, "passed"):
        os.kill(pid, signal.SIGKILL)
    assert box.run([RIGHT, RIGHT], 30.0) == ["passed"] * 2


def test_no_tester_serves_for_ever(monkeypatch):
    monkeypatch.setattr(tester_process, "MOST_JOBS", 2)
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=tester_process._serve, args=(theirs,))
    serving.start()
    replies = []
    for _ in range(2):
        gone, guest = socket.socketpair()
        gone.close()
        with guest:
            socket.send_fds(ours, [json.dumps(vars(RIGHT)).encode() + b"\n"], [guest.fileno()])
            replies.append(ours.recv(64))
    serving.join(10)
    ours.close()
    theirs.close()
    assert replies == [b"crash reusable", b"crash ends"]


@pytest.mark.parametrize(
    ("test", "may"),
    [
        ("assert f(1) == math.sqrt(x.y) <= 2.5", False),
        ("assert f([1, 2], key=3) == 3 and a.b != 4", False),
        ("def check(g):\n    assert g(1) >= 2", False),
        ("import math\nfrom typing import List", False),
        ("x = [1]\nx[0] = 2\ndel x[0]", False),
        ("import math, os", True),
        ("from random import seed", True),
        ("x.y = 3", True),
        ("x.y += 3", True),
        ("x.y.z: int = 3", True),
        ("del x.y", True),
        ("setattr(math, 'pi', 3)", True),
        ("f.__globals__", True),
        ("sys.setrecursionlimit(9)", True),
        ("decimal.getcontext()", True),
        ("assert f(", True),
    ],
)
def test_tests_that_may_alter_their_process_are_recognised(test, may):
    assert tester_process.alters(Job("", (test,))) == may
    assert tester_process.alters(Job("", (), setup=test)) == may
    assert tester_process.alters(Job("", (), prelude=test)) == may


def test_no_fork_of_the_sandbox_runs_handlers(box):
    """Each handler that a module registers costs every program its page faults."""
    program = "import os\ndef f(x): return type(os.register_at_fork).__name__"
    assert box.run([Job(program, ("assert f(1) == 'function'",))], 30.0) == ["passed"]
