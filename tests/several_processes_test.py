"""One of two processes fails, is killed or stands still: the other ends soon, and says why.

Also: one that starts late is waited for.
"""

import re
import time

import pytest

from score_jax.runtime import hosts
from tests import splits_test

# In process FAILS[0], the call FAILS[2] of FAILS[3] fails as FAILS[1] says.
FAILURE = """
import importlib
import subprocess
import time

failing, how, at, place = os.environ["FAILS"].split()
if f"--process={failing}" in sys.argv:
    if how == "late":
        time.sleep(float(at))
    module, names = place.split(":")
    owner = importlib.import_module(module)
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    calls, real = [], getattr(owner, name)

    def failing_call(*arguments, **more):
        calls.append(1)
        if how != "late" and len(calls) == int(at):
            open(os.environ["FAILED_AT"], "w").close()
            if how == "raise":
                raise RuntimeError("a bug")
            if how == "full":
                raise OSError(28, "No space left on device")
            # Stopped for good, it would be waited for by the launcher too.
            waken, no = f"sleep 90; kill -CONT {os.getpid()}", subprocess.DEVNULL
            subprocess.Popen(["sh", "-c", waken], stdout=no, stderr=no)
            os.kill(os.getpid(), getattr(signal, how))
        return real(*arguments, **more)

    setattr(owner, name, failing_call)
"""
PLACES = {
    "first evaluation": "1 score_jax.evaluation.queue:Kept.add",
    "hand-over": "1 score_jax.loop:_start_of",
    "rollout": "2 score_jax.rollout.episode:run",
    "grading": "2 score_jax.grading:grade",
    "update": "3 score_jax.learner.step:train_step",
    "save": "1 score_jax.checkpoints:StageCheckpoints.save",
}
LIMITS = [  # longer than a process may be silent
    f"--config.watchdog.{phase}=110"
    for phase in ("train_step", "rollout", "grade", "save", "evaluation")
]
# The other process's words. When process 0 is killed they are jax's.
RAISED = r"\[{other}\] score_jax: process {it} on \S+ has ended: RuntimeError: a bug"
FULL = r"\[{other}\] score_jax: process {it} on \S+ has ended: no space is left in"
SILENT = r"\[0\] score_jax: process 1 on \S+ was killed or stands still"
SERVICE = r"\[1\] .*coordination service"


def ended(folder, monkeypatch, fails: str) -> tuple[str, float]:
    """What two processes said, and seconds from the failure to the end of both."""
    monkeypatch.setattr(splits_test, "CONFIG", splits_test.CONFIG + FAILURE)
    failed = folder / "failed"
    done = splits_test.in_two_processes(folder, *LIMITS, FAILS=fails, FAILED_AT=str(failed))
    print(done.stdout[-3000:], done.stderr[-1000:])
    assert done.returncode not in (0, 2, 75)
    return done.stdout, time.time() - failed.stat().st_mtime


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", "10")
@pytest.mark.parametrize("place", PLACES)
def test_the_other_process_ends_and_names_the_one_that_failed(
    tmp_path, monkeypatch, process, place
):
    said, sec = ended(tmp_path, monkeypatch, f"{process} raise {PLACES[place]}")
    assert re.search(RAISED.format(it=process, other="01".replace(process, "")), said)
    # Process 0 also waits for the others to leave jax's service, which they do not.
    assert sec < (20 if process == "1" else 20 + hosts.LEAVE_SEC)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("fails", "words", "sec"),
    [
        (f"0 full {PLACES['update']}", FULL.format(it="0", other="1"), 20 + hosts.LEAVE_SEC),
        (f"1 full {PLACES['save']}", FULL.format(it="1", other="0"), 20),
        (f"1 SIGKILL {PLACES['update']}", SILENT, 90),
        (f"0 SIGKILL {PLACES['update']}", SERVICE, 150),
        (f"1 SIGKILL {PLACES['grading']}", SILENT, 90),
        (f"1 SIGKILL {PLACES['save']}", SILENT, 90),
        (f"1 SIGKILL {PLACES['first evaluation']}", SILENT, 90),
        (f"1 SIGSTOP {PLACES['update']}", SILENT, 110),
        (f"1 SIGSTOP {PLACES['grading']}", SILENT, 110),
    ],
)
def test_the_other_process_ends_when_one_is_killed_or_stands_still(
    tmp_path, monkeypatch, fails, words, sec
):
    said, took = ended(tmp_path, monkeypatch, fails)
    assert re.search(words, said)
    assert took < sec


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", "01")
def test_a_process_that_starts_a_minute_late_is_waited_for(tmp_path, monkeypatch, process):
    monkeypatch.setattr(splits_test, "CONFIG", splits_test.CONFIG + FAILURE)
    late = f"{process} late 60 {PLACES['update'].split()[1]}"
    done = splits_test.in_two_processes(tmp_path, FAILS=late)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
