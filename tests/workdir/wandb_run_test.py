"""Logging to Weights & Biases: what is sent, and the package itself offline."""

import builtins
import io
import os
import subprocess
import sys
import time
import types

import pytest

from score_jax.problem import InputError
from score_jax.workdir import runlog
from score_jax.workdir.wandb_run import WandbRun

METRICS = {"n": 4, "accuracy_attempt1": 0.25, "interval": {"accuracy_attempt1": [0.0, 1.0]}}
TRANSCRIPT = {
    "id": "a",
    "problem": "1+1",
    "attempts": [{"text": "2", "reward": 1.0, "reason": "equal", "tokens": 1, "truncated": False}],
}


class Fake(types.ModuleType):
    """As much of wandb as is used, which notes what it was told."""

    class Error(Exception):
        """What wandb raises."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished = [], [], 0

    def Settings(self, **settings):
        return settings

    def init(self, **how):
        self.started.append(how)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def fake(monkeypatch):
    made = Fake()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def log_a_stage(workdir, steps=2):
    with runlog.RunLog(workdir, stream=io.StringIO(), wandb="project") as log:
        log.write_config({"seed": 7}, device="cpu")
        log.start_stage("stage1", steps=steps, steps_before=10)
        for step in range(1, steps + 1):
            log.log(step, {"loss": 1.5, "sandbox": "none"})
        log.show_evaluation(10 + steps, METRICS, [TRANSCRIPT])


def test_steps_and_evaluations_are_sent_as_numbers(fake, tmp_path):
    log_a_stage(tmp_path / "run")
    assert [(step, values.get("loss")) for step, values in fake.logged[:2]] == [
        (11, 1.5),
        (12, 1.5),
    ]
    assert "sandbox" not in fake.logged[0][1] and "stage" not in fake.logged[0][1]
    assert fake.logged[2] == (12, {"evaluation/n": 4, "evaluation/accuracy_attempt1": 0.25})
    (started,) = fake.started
    assert (started["project"], started["name"]) == ("project", "run")
    assert started["config"] == {"seed": 7} and started["dir"] == tmp_path / "run"
    assert fake.finished == 1


def test_a_resumed_run_goes_on_under_the_same_id(fake, tmp_path):
    log_a_stage(tmp_path)
    log_a_stage(tmp_path)
    first, second = fake.started
    assert first["id"] == second["id"] and len(first["id"]) == 8
    assert second["resume"] == "allow"


def test_without_a_project_nothing_is_imported(fake, tmp_path):
    with runlog.RunLog(tmp_path, stream=io.StringIO()) as log:
        log.write_config({}, device="cpu")
    assert not fake.started and not (tmp_path / "wandb").exists()


def test_a_missing_package_is_told_before_anything_runs(monkeypatch, tmp_path):
    found = builtins.__import__

    def without(name, *rest):
        if name == "wandb":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install '\.\[wandb\]'"):
        runlog.RunLog(tmp_path, stream=io.StringIO(), wandb="project")


def test_a_refusal_of_the_service_is_told_with_what_to_do(fake, tmp_path):
    def refuse(**how):
        raise fake.Error("api_key not configured")

    fake.init = refuse
    with pytest.raises(InputError, match=r"api_key not configured.*WANDB_MODE=offline"):
        WandbRun("project", tmp_path).start({})


def test_the_package_itself_keeps_an_offline_run(tmp_path):
    """In a process of its own: the package's threads outlive the run that started them."""
    pytest.importorskip("wandb")
    script = "import pathlib, sys; from tests.workdir.wandb_run_test import log_a_stage; "
    script += "log_a_stage(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "WANDB_MODE": "offline"},
        timeout=120,
        check=True,
    )
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert (tmp_path / "wandb" / "id").read_text() in kept.name
    until = time.monotonic() + 60  # another process writes it, a little later
    while b"evaluation/accuracy_attempt1" not in kept.read_bytes():
        assert time.monotonic() < until, "the evaluation never came"
        time.sleep(0.1)
