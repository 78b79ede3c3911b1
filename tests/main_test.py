"""The command line: what a user types wrong, and what is said about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = "--config=configs/quickstart.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    """The command with one device."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "score_jax.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--config=FILE is missing"),
        ((QUICKSTART,), "--workdir=DIR is missing"),
        ((QUICKSTART, "--workdir=W", "--mode=trian"), "Did you mean 'train'?"),
        ((QUICKSTART, "--workdri=W"), "workdri"),
        (("--config=configs/quickstat.py", "--workdir=W"), "quickstat.py"),
        (("--config=configs/quickstart.py:scroe", "--workdir=W"), "known: score"),
        (
            (QUICKSTART, "--workdir=W", "--config.rollout.temprature=1"),
            "unknown setting --config.rollout.temprature: 'temprature' Did you mean \"temperature",
        ),
        ((QUICKSTART, "--workdir=W", "--config.stages.stage3.steps=1"), "stages.stage3"),
        ((QUICKSTART, "--workdir=W", "--config.seed=one"), "seed"),
        ((QUICKSTART, "--workdir=W", "--config.memory.micro_batches=3"), "256 rows"),
        ((QUICKSTART, "--workdir=W", "extra"), "unexpected arguments: extra"),
    ],
)
def test_a_mistyped_command_is_explained_in_one_message(arguments, said, tmp_path):
    workdir = tmp_path / "run"
    done = run(*(a.replace("--workdir=W", f"--workdir={workdir}") for a in arguments))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 3
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--config.model.source=preset:quickstrat", "Did you mean 'quickstart'?"),
        ("--config.model.source=missing.gguf", "missing.gguf"),
        ("--config.model.tokenizer=nowhere", "nowhere"),
        ("--config.problems.name=arithmetics", "arithmetic"),
        ("--config.problems.prompt=maths", "Did you mean 'math'?"),
        ("--config.rollout.max_attempt_tokens=100", "the model's context is 128"),
        ("--config.mesh.data=3", "does not cover 1 devices"),
    ],
)
def test_input_that_does_not_fit_is_explained_in_one_message(setting, said, tmp_path):
    done = run(QUICKSTART, f"--workdir={tmp_path / 'run'}", setting)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_work_directory_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(QUICKSTART, f"--workdir={tmp_path / 'file' / 'run'}")
    assert done.returncode == 2
    assert "cannot write to the work directory" in done.stderr
