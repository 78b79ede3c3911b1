import io
import os
import pty
import threading

import pytest

from score_jax.workdir import progress

_ROW = {
    "reward/attempt1": 0.41,
    "reward/attempt2": 0.87,
    "kl/attempt1": 0.8,
    "kl/attempt2": 2.1,
    "tokens_per_sec/rollout": 12345.0,
}


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_step_is_described_by_what_it_has():
    assert progress.describe(_ROW) == (
        "reward 0.41 → 0.87 (+0.46)  KL 0.80, 2.10 nats  rollout 12.3k tok/s"
    )
    one = {"reward/attempt1": 0.5, "kl/attempt1": -0.001, "tokens_per_sec/rollout": 2000.0}
    assert progress.describe(one) == "reward 0.50  KL 0.00 nats  rollout 2.0k tok/s"
    graded = _ROW | {"solved/attempt1": 0.2, "solved/attempt2": 0.35}
    assert "(+0.46)  solved 20 → 35 %  KL" in progress.describe(graded)
    alike = _ROW | {"solved/attempt1": 0.41, "solved/attempt2": 0.87}
    assert progress.describe(alike) == progress.describe(_ROW)
    documents = {"loss": 1.23456, "reward/attempt1": 1.0, "kl/attempt1": 0.0}
    assert progress.describe(documents | {"tokens_per_sec/update": 800}) == (
        "loss 1.235 nats  update 800 tok/s"
    )
    assert progress.describe({"reward/attempt1": None, "loss": None}) == ""


def test_an_evaluation_is_described_in_per_cent_and_points():
    found = {"accuracy_attempt1": 0.346, "accuracy_attempt2": 0.305, "delta": -0.041, "n": 2048}
    assert progress.describe_evaluation(found) == "right 34.6 → 30.5 %, Δ -4.1 points (n=2048)"
    alike = found | {"lenient_attempt1": 0.346, "lenient_attempt2": 0.305}
    assert progress.describe_evaluation(alike) == progress.describe_evaluation(found)
    more = alike | {"lenient_attempt2": 0.4, "reward_attempt1": 0.5, "reward_attempt2": 1.25}
    assert progress.describe_evaluation(more) == (
        "right 34.6 → 30.5 %, Δ -4.1 points, leniently 34.6 → 40.0 %, "
        "mean reward 0.500 → 1.250 (n=2048)"
    )
    three = found | {"accuracy_attempt3": 0.5, "delta_last": 0.154}
    assert progress.describe_evaluation(three) == (
        "right 34.6 → 30.5 → 50.0 %, Δ -4.1 points, last − first +15.4 points (n=2048)"
    )
    single = {"accuracy_attempt1": 0.25, "n": 4}
    assert progress.describe_evaluation(single) == "right 25.0 % (n=4)"


def test_plain_lines_come_at_intervals_and_at_both_ends_of_a_stage(clock):
    stream = io.StringIO()
    shown = progress.Progress(stream, line_sec=5.0)
    shown.start_stage("stage1", 100)
    for step in range(1, 101):
        shown.show(step, _ROW)
        clock[0] += 0.125
    steps = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert steps == [1, 41, 81, 100]
    first, _, middle, last = stream.getvalue().splitlines()
    described = "reward 0.41 → 0.87 (+0.46)  KL 0.80, 2.10 nats  rollout 12.3k tok/s"
    assert first == f"stage1    1/100  {described}  eta -"
    assert middle.endswith("eta 0:02")  # 19 steps of 0.125 s
    assert last.endswith("eta 0:00")


def test_the_estimate_leaves_out_steps_done_before_a_resume(clock):
    stream = io.StringIO()
    shown = progress.Progress(stream, line_sec=0.0)
    shown.start_stage("stage1", 100)
    for step in (90, 91):
        shown.show(step, _ROW)
        clock[0] += 2.0
    assert stream.getvalue().splitlines()[-1].endswith("eta 0:18")  # 9 steps of 2 s


def test_a_stream_without_arrows_gets_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    progress.Progress(stream).say("0.41 → 0.87")
    assert raw.getvalue() == b"0.41 ? 0.87\n"


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_terminal_gets_a_bar_with_the_rewards(monkeypatch, columns):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    leader, follower = pty.openpty()
    seen = bytearray()

    def read():
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other end was closed
                return
            if not chunk:
                return
            seen.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        shown = progress.Progress(stream)
        shown.start_stage("stage1", 200)
        shown.show(1, _ROW)
        shown.say("saved [step 1]")
        shown.show(200, _ROW)
        shown.close()
    reader.join(timeout=10)
    os.close(leader)
    text = seen.decode()
    assert "━" in text
    assert "200/200" in text and "eta 0:00" in text
    assert "reward 0.41 → 0.87 (+0.46)  KL 0.80, 2.10 nats" in text
    assert ("rollout 12.3k tok/s" in text) == (columns == "120")
    assert "saved [step 1]" in text


def test_a_models_size_says_what_is_trained_of_it():
    assert progress.model_size(1_234_567, 1_234_567, 4_938_268, "16.0 GB") == (
        "model: 1,234,567 parameters, all trained; 0.00 GB of weights; memory 16.0 GB"
    )
    assert progress.model_size(500_000_000, 4_400_000, 2_017_600_000, "16.0 GB") == (
        "model: 500,000,000 parameters, 4,400,000 (0.88%) trained; 2.02 GB of weights; "
        "memory 16.0 GB"
    )
