"""An evaluation that is killed, or stopped by a signal, goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from score_jax.config.command_line import settings_of
from score_jax.experiment import Experiment
from score_jax.model import weights
from tests.modes.evaluate_test import serving

ROOT = Path(__file__).parents[2]
ROWS = 96
# Grades slowly, and notes what it is asked for; a run first asks it about a row of empty texts.
REWARD = """import time

def paid(problem, texts, gold):
    time.sleep(0.05)
    with open({log!r}, "a") as file:
        file.write(problem.id + chr(10))
    return [float(len(text) % 2) for text in texts]
"""


def command(folder: Path, workdir: str) -> list[str]:
    (folder / "reward.py").write_text(REWARD.format(log=str(folder / f"{workdir}.log")))
    return [
        *(sys.executable, "-m", "score_jax.main", f"--config={ROOT / 'configs' / 'quickstart.py'}"),
        f"--workdir={folder / workdir}",
        "--mode=evaluate",
        f"--config.evaluation.problems={ROWS}",
        "--config.evaluation.batch=8",
        f"--config.rewards.function={folder / 'reward.py'}:paid",
    ]


def until(begun: subprocess.Popen, file: Path, lines: int) -> list[dict]:
    """Waits until the file has so many whole lines; returns them."""
    ends = time.monotonic() + 240
    while time.monotonic() < ends and begun.poll() is None:
        found = file.read_text().splitlines(keepends=True) if file.exists() else []
        whole = [json.loads(line) for line in found if line.endswith("\n")]
        if len(whole) >= lines:
            return whole
        time.sleep(0.01)
    raise AssertionError(f"{file} has fewer than {lines} lines; exit status {begun.poll()}")


def transcripts(folder: Path) -> list[dict]:
    lines = (folder / "transcripts" / "latest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_three_moments_it_ends_with_the_same_rows(tmp_path):
    subprocess.run(command(tmp_path, "whole"), cwd=ROOT, check=True)
    asked = command(tmp_path, "killed")
    part = tmp_path / "killed" / "evaluations" / "latest.part.jsonl"
    for lines in (2, 30, 70):
        begun = subprocess.Popen(asked, cwd=ROOT)
        kept = until(begun, part, lines)
        begun.kill()
        begun.wait()
        assert {row["item"] for row in kept[1:]} < set(range(ROWS))
        noted = len((tmp_path / "killed.log").read_text().splitlines())
    subprocess.run(asked, cwd=ROOT, check=True)
    assert transcripts(tmp_path / "killed") == transcripts(tmp_path / "whole")
    assert not part.exists()
    # Asked again: only what was being graded at a kill. The log of the last process has none of
    # the rows that were kept.
    problems = [row["problem"] for row in transcripts(tmp_path / "whole")]
    kept_problems = [problems[row["item"]] for row in kept[1:]]
    last = (tmp_path / "killed.log").read_text().splitlines()[noted:]
    assert len(last) <= 1 + ROWS - len(kept_problems)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_signal_stops_it_with_75_and_loses_nothing(tmp_path):
    asked = command(tmp_path, "stopped")
    part = tmp_path / "stopped" / "evaluations" / "latest.part.jsonl"
    begun = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    until(begun, part, 20)
    os.kill(begun.pid, signal.SIGTERM)
    said, _ = begun.communicate(timeout=120)
    assert begun.returncode == 75 and "re-running goes on" in said
    kept = part.read_text().splitlines()
    noted = (tmp_path / "stopped.log").read_text().splitlines()
    assert len(kept) == len(noted)
    subprocess.run(asked, cwd=ROOT, check=True)
    assert len((tmp_path / "stopped.log").read_text().splitlines()) == 2 + ROWS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_engine_that_is_killed_ends_the_evaluation_with_one_message_and_it_goes_on(tmp_path):
    settings = settings_of([f"--config={ROOT / 'configs' / 'quickstart.py'}"])
    opened = Experiment.open(settings)
    weights.save(tmp_path / "model", opened.model, opened.initial_params())
    subprocess.run(command(tmp_path, "whole"), cwd=ROOT, check=True)
    place = tmp_path / "socket"
    asked = [*command(tmp_path, "through"), f"--config.rollout.engine=socket:{place}"]
    part = tmp_path / "through" / "evaluations" / "latest.part.jsonl"
    with serving(tmp_path / "model", place) as _:
        begun = subprocess.Popen(asked, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        until(begun, part, 20)
    said = begun.communicate(timeout=240)[1]
    assert begun.returncode == 74 and "Traceback" not in said
    assert f"the engine at socket:{place} is gone" in said and "Re-running resumes" in said
    kept = len(part.read_text().splitlines()) - 1
    noted = len((tmp_path / "through.log").read_text().splitlines())
    with serving(tmp_path / "model", place):
        subprocess.run(asked, cwd=ROOT, check=True)
    assert transcripts(tmp_path / "through") == transcripts(tmp_path / "whole")
    last = (tmp_path / "through.log").read_text().splitlines()[noted:]
    assert 0 < kept < ROWS and len(last) == 1 + ROWS - kept
