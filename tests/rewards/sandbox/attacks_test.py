"""The attacks in every kind of sandbox: no reward, no harm, nothing left over, and in time."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from score_jax.rewards.programs import grade as programs
from score_jax.rewards.sandbox import scheduler
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import attacks, attacks_kernel, attacks_objects, sandboxes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

TIMEOUT_SEC = 1.5
GROUPS = ("HANGING", "FORGING", "REACHING", "UNREADABLE")


@pytest.fixture(scope="module", autouse=True)
def _ended():
    yield
    sandboxes.close()


@pytest.fixture
def outside(tmp_path):
    """A folder and a file that anyone may write, a listening port; all must stay as they are."""
    os.chmod(tmp_path, 0o777)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o666)
    os.utime(secret, (1_000_000_000, 1_000_000_000))
    before = secret.stat()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield {
            "folder": str(tmp_path),
            "secret": str(secret),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "project": str(Path(__file__).parents[3] / "README.md"),
        }
        with pytest.raises(BlockingIOError):
            listener.accept()
    after = secret.stat()
    assert os.listdir(tmp_path) == ["secret"]
    assert secret.read_text() == "secret"
    assert (after.st_mode, after.st_uid, after.st_mtime) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime,
    )


def jobs(group: str, words: dict[str, object]) -> dict[str, Job]:
    texts = {
        name: text
        for module in (attacks, attacks_kernel, attacks_objects)
        for name, text in getattr(module, group, {}).items()
    }
    if group == "REACHING":
        texts = {name: text.format(**words) for name, text in texts.items()}
    return {name: Job(text, attacks.TESTS) for name, text in texts.items()}


@pytest.mark.parametrize("kind", sandboxes.KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_attacks_earn_nothing_and_harm_nothing(kind, group, outside):
    box = sandboxes.of_kind(kind)
    before = set(sandboxes.programs_of(box))  # a program of an earlier test may still be ending
    asked = {
        name: job for name, job in jobs(group, outside).items() if not programs._unrunnable(job)
    }
    began = time.monotonic()
    reasons = box.run(list(asked.values()), TIMEOUT_SEC)
    took_sec = time.monotonic() - began
    assert [name for name, reason in zip(asked, reasons, strict=True) if reason == "passed"] == []
    if group == "HANGING":
        wrong = dict(zip(asked, reasons, strict=True))
        assert {reason for name, reason in wrong.items() if "socket" not in name} <= {
            *("timeout", "failed", "memory")
        }
    # All together, on two busy cores: much less than one deadline each.
    assert took_sec < 8 * TIMEOUT_SEC
    # The last of them may still be ending.
    deadline = time.monotonic() + 5.0
    while not before.issuperset(sandboxes.programs_of(box)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert before.issuperset(sandboxes.programs_of(box))
    # Only testers that wait for work are left.
    assert len(sandboxes.testers_of(box)) <= scheduler.IDLE_TESTERS * len(os.sched_getaffinity(0))
    assert box.run([Job(attacks.RIGHT["plain"], attacks.TESTS)], 30.0) == ["passed"]


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_odd_but_right_programs_earn_the_reward(kind):
    box = sandboxes.of_kind(kind)
    asked = [Job(text, attacks.TESTS) for text in attacks.RIGHT.values()]
    reasons = box.run(asked, 30.0, overtime=True)
    assert [n for n, r in zip(attacks.RIGHT, reasons, strict=True) if r != "passed"] == []


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_tests_of_other_forms_tell_right_from_wrong(kind):
    box = sandboxes.of_kind(kind)
    cases = attacks_objects.OTHER_TESTS
    reasons = box.run([Job(program, tests) for program, tests, _ in cases.values()], 30.0)
    rewarded = {name for name, reason in zip(cases, reasons, strict=True) if reason == "passed"}
    assert rewarded == {name for name, (_, _, right) in cases.items() if right}


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_nothing_a_program_leaves_is_there_for_the_next(kind):
    box = sandboxes.of_kind(kind)
    job = Job(attacks.REACHING["a file left for the next"], ("assert add(1, 2) == 3",))
    for _ in range(3):
        assert box.run([job], 30.0) != ["passed"]


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_programs_that_never_end_are_killed_at_their_deadline(kind):
    box = sandboxes.of_kind(kind)
    names = ("one call into C", "signals ignored", "sleep")
    began = time.monotonic()
    reasons = box.run([Job(attacks.HANGING[name], attacks.TESTS) for name in names], 1.0)
    assert reasons == ["timeout"] * 3
    assert 1.0 < time.monotonic() - began < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", sandboxes.KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_every_attack_alone_ends_by_its_own_deadline(kind, group, outside):
    box = sandboxes.of_kind(kind)
    late = []
    for name, job in jobs(group, outside).items():
        if programs._unrunnable(job):
            continue
        began = time.monotonic()
        assert box.run([job], TIMEOUT_SEC) != ["passed"], name
        if time.monotonic() - began > TIMEOUT_SEC + 1.0:
            late.append((name, time.monotonic() - began))
    assert late == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_a_hundred_that_never_end_delay_a_batch_as_long_as_one_does(kind):
    """On a busy machine a deadline is longer, so one that never ends is timed beside them."""
    box = sandboxes.of_kind(kind)
    hanging = [Job(f"while True: {n}", attacks.TESTS) for n in range(100)]
    honest = [Job(f"def add(a, b): return a + b + 0 * {n}", attacks.TESTS) for n in range(100)]

    def seconds(number):
        began = time.monotonic()
        reasons = box.run(hanging[:number] + honest, programs.TIMEOUT_SEC, overtime=True)
        assert reasons == ["timeout"] * number + ["passed"] * 100
        return time.monotonic() - began

    none, one, hundred = seconds(0), seconds(1), seconds(100)
    print(f"none {none:.2f} s, one {one:.2f} s, a hundred {hundred:.2f} s")
    assert hundred < 1.25 * one + 5 * none
