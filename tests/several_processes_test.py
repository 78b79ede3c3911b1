"""One of two processes fails, is killed or stands still: the other ends soon, and says why."""

import re
import time

import pytest

from tests import splits_test

# The third update of the process that FAILS (its number) never comes.
FAILURE = """
import subprocess

failing, how = os.environ["FAILS"].split()
if f"--process={failing}" in sys.argv:
    from score_jax.learner import step

    calls, real = [], step.train_step

    def train_step(*arguments, **more):
        calls.append(1)
        if len(calls) == 3:
            if how == "raise":
                raise RuntimeError("a bug")
            if how == "full":
                raise OSError(28, "No space left on device")
            # Stopped for good, it would be waited for by the launcher too.
            subprocess.Popen(["sh", "-c", f"sleep 120; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), getattr(signal, how))
        return real(*arguments, **more)

    step.train_step = train_step
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("fails", "said", "sec"),
    [
        (
            "1 raise",
            r"\[0\] score_jax: process 1 on \S+ has ended: RuntimeError: a bug",
            30,
        ),
        (
            "0 raise",
            r"\[1\] score_jax: process 0 on \S+ has ended: RuntimeError: a bug",
            30,
        ),
        ("0 full", r"\[1\] score_jax: process 0 on \S+ has ended: no space is left in", 30),
        ("1 full", r"\[0\] score_jax: process 1 on \S+ has ended: no space is left in", 30),
        ("1 SIGKILL", r"\[0\] .*task:? ?1", 150),
        ("0 SIGKILL", r"\[1\] ", 150),
        ("1 SIGSTOP", r"\[0\] score_jax: the phase .* process 1", 150),
    ],
)
def test_the_other_process_ends_and_names_the_one_that_failed(
    tmp_path, monkeypatch, fails, said, sec
):
    monkeypatch.setattr(splits_test, "CONFIG", splits_test.CONFIG + FAILURE)
    limits = ("--config.watchdog.train_step=40", "--config.watchdog.rollout=40")
    began = time.monotonic()
    done = splits_test.in_two_processes(tmp_path, *limits, FAILS=fails)
    print(done.stdout[-3000:], done.stderr[-1000:], time.monotonic() - began)
    assert done.returncode not in (0, 2, 75)
    assert re.search(said, done.stdout)
    metrics = tmp_path / "run" / "metrics.jsonl"
    assert time.time() - metrics.stat().st_mtime < sec
