"""Questions with a deadline each, against workers that sleep."""

import contextlib
import os
import signal
import time

import pytest

from score_jax.rewards import functions
from score_jax.rewards.functions import Limits
from score_jax.rewards.workers import calls, pool


@pytest.fixture
def sleeper(tmp_path):
    """A pool whose function sleeps for as long as a text says, two at a time."""
    file = tmp_path / "sleeper.py"
    file.write_text(
        "import time\ndef reward(p, texts, g): time.sleep(float(texts[0])); return [1]\n"
    )
    yield lambda: functions._start(f"{file}:reward", Limits(workers=2))
    pool.close()


def question(seconds: float) -> tuple:
    problem = {"id": "p", "prompt": "", "gold": ""}
    return (False, [problem], [[str(seconds)]], {})


def test_a_deadline_begins_when_its_question_is_asked(sleeper):
    """Eight times 0.3 s in two workers take 1.2 s, more than any one may take."""
    found = dict(calls.answers(sleeper, [question(0.3)] * 8, 0.6))
    assert [found[n][:3] for n in range(8)] == ["[[["] * 8
    found = dict(calls.answers(sleeper, [question(9), question(0), question(9)], 0.3))
    assert (found[0], found[1][:1], found[2]) == ("timeout", "[", "timeout")


def test_closing_it_ends_what_runs(sleeper):
    began = time.monotonic()
    with contextlib.closing(calls.answers(sleeper, [question(0), question(30)], 60.0)) as found:
        assert next(found)[0] == 0
    assert time.monotonic() - began < 10.0
    workers = sleeper()
    assert workers._count == len(workers._idle) == 1


def test_processes_that_were_ended_from_outside_are_started_again(sleeper):
    assert dict(calls.answers(sleeper, [question(0)], 5.0))
    os.kill(sleeper()._spawner.pid, signal.SIGKILL)
    found = dict(calls.answers(sleeper, [question(0)] * 5, 5.0))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert sum(answer.startswith("[") for answer in found.values()) >= 4  # one was idle, and died
