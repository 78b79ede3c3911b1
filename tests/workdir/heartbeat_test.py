"""The line that ends a silence."""

import io
import time

from score_jax.workdir import heartbeat
from score_jax.workdir.runlog import RunLog


def until(said, *, sec: float = 10.0) -> None:
    """Waits for `said()`; fails if it stays false."""
    deadline = time.monotonic() + sec
    while not said():
        assert time.monotonic() < deadline, "nothing was said"
        time.sleep(0.01)


def test_silence_ends_with_a_line_that_says_what_is_being_done_and_how_long():
    lines: list[str] = []
    beat = heartbeat.Heartbeat(lines.append, "reading", quiet_sec=0.05)
    until(lambda: len(lines) >= 2)
    assert lines[0] == "still at work: reading, 0:00 so far"
    assert beat.doing("rollout, step 3 of stage1") == "reading"
    beat._since -= 75.0
    until(lambda: "rollout, step 3 of stage1, 1:15" in lines[-1])
    beat.doing("")  # waits for someone
    time.sleep(0.1)
    said = len(lines)
    time.sleep(0.3)
    assert len(lines) == said
    beat.close()
    beat._thread.join(timeout=10)
    assert not beat._thread.is_alive()


def test_what_else_is_said_is_enough():
    lines: list[str] = []
    beat = heartbeat.Heartbeat(lines.append, "reading", quiet_sec=5.0)
    for _ in range(3):
        beat._spoke -= 4.9
        beat.spoke()
    assert heartbeat.QUIET_SEC + 1.0 < 30.0
    time.sleep(1.2)
    assert not lines
    beat.close()


def test_a_runs_log_says_what_its_run_does(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "QUIET_SEC", 0.05)
    stream = io.StringIO()
    with RunLog(tmp_path, stream=stream) as log:
        before = log.doing("update, step 1 of base")
        until(lambda: "still at work: update, step 1 of base, 0:0" in stream.getvalue())
        log.doing(before)
        until(lambda: "still at work: reading problems and model, " in stream.getvalue())
    written = stream.getvalue()
    time.sleep(0.3)
    assert stream.getvalue() == written  # its end is that of the log
