"""Memory is shared among programs, and a forkserver that fails says why."""

import subprocess
import sys

import pytest

from score_jax.rewards.sandbox import launch, scheduler
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

TEST = ("assert f(1) == 1",)


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    sandboxes.close()


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_programs_that_together_hold_too_much_memory_are_killed_largest_first(kind):
    sandboxes.of_kind(kind)
    limit = 140 << 20  # more than twice the middle one: only the largest can exceed it
    control, theirs = scheduler.socket.socketpair()
    # A process of its own: what this one has loaded would count for every tester.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from score_jax.rewards.sandbox import scheduler\n"
        f"scheduler.proc.free_memory_bytes = lambda: {2 * limit}\n"
        f"scheduler.main({theirs.fileno()}, {kind!r})"
    )
    root = str(scheduler.Path(scheduler.__file__).parents[3])
    process = subprocess.Popen([sys.executable, "-c", code, root], pass_fds=[theirs.fileno()])
    theirs.close()
    assert control.recv(64) == b"ready\n"
    hog = "x = b'x' * ({} << 20)\nimport time\ntime.sleep({})\ndef f(x): return x"
    # The memory that a program shares with its forkserver is not counted.
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


def test_a_forkserver_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(launch, "_PACKAGE_ROOT", "/nowhere")
    with pytest.raises(launch.ForkserverGone, match="it ended while starting"):
        launch.Forkserver("namespace", launch.Packages())
