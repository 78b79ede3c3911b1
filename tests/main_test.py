"""The command line: what a user types wrong, and what is said about it."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import pytest

import score_jax
from score_jax import main
from score_jax.rewards.sandbox import scarce
from score_jax.runtime import watchdog

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = "--config=configs/quickstart.py"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths on the command line are relative to the root."""
    monkeypatch.chdir(ROOT)


def run(*arguments: str) -> int:
    """The exit status of a command line, in this process."""
    argv = ["score_jax", *arguments]
    with mock.patch.object(sys, "argv", argv):
        return main.main(argv)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--config=FILE is missing"),
        ((QUICKSTART,), "--workdir=DIR is missing"),
        (
            (QUICKSTART, "--workdir=s3://b/run", "--mode=try"),
            "s3://b/run: of buckets only gs:// is",
        ),
        (
            (QUICKSTART, "--workdir=W", "--mode=export", "--export_dir=s3://b/out"),
            "s3://b/out: of buckets only gs:// is",
        ),
        ((QUICKSTART, "--workdir=W", "--mode=trian"), "Did you mean 'train'?"),
        ((QUICKSTART, "--workdri=W"), "workdri"),
        (("--config=configs/quickstat.py", "--workdir=W"), "quickstat.py"),
        (("--config=configs/quickstart.py:scroe", "--workdir=W"), "known: score"),
        (
            (QUICKSTART, "--workdir=W", "--config.rollout.temprature=1"),
            "unknown setting config.rollout.temprature. Did you mean 'temperature'?",
        ),
        ((QUICKSTART, "--workdir=W", "--config.stages.stage3.steps=1"), "stages.stage3"),
        (
            (QUICKSTART, "--workdir=W", "--config.problems.tests.aime.name=jsonl"),
            "no --config.problems.tests.aime. Give it whole: --config.problems.tests.aime=",
        ),
        ((QUICKSTART, "--workdir=W", "--config.seed=one"), "seed"),
        ((QUICKSTART, "--workdir=W", "--config.seed=-1"), "config.seed=-1 must be from 0"),
        ((QUICKSTART, "--workdir=W", f"--config.seed={2**32}"), "must be from 0 to 4294967295"),
        ((QUICKSTART, "--workdir=W", "--config.memory.micro_batches=3"), "256 rows"),
        ((QUICKSTART, "--workdir=W", "extra"), "unexpected arguments: extra"),
        ((QUICKSTART, "--workdir=W", "--question=1+2"), "--question is for --mode=try"),
        ((QUICKSTART, "--workdir=W", "--mode=export"), "has no checkpoint"),
        ((QUICKSTART, "--workdir=W", "--push=me/mine"), "--push is for --mode=export"),
        ((QUICKSTART, "--workdir=W", "--mode=export", "--push=mine"), "Give OWNER/NAME"),
        ((QUICKSTART, "--workdir=W", "--topology=v5e:4x4"), "--topology is for --mode=plan"),
        ((QUICKSTART, "--workdir=W", "--device=t4"), "--device is for --mode=plan"),
        ((QUICKSTART, "--mode=plan"), "needs the machine to plan for: --device=KIND:COUNT"),
        ((QUICKSTART, "--mode=plan", "--topology=v5e"), "such as v5e-16 or v5e:4x4"),
        ((QUICKSTART, "--mode=plan", "--device=t5"), "--memory=24GiB"),
    ],
)
def test_a_mistyped_command_is_explained_in_one_message(arguments, said, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert run(*(a.replace("--workdir=W", f"--workdir={workdir}") for a in arguments)) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
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
        ("--config.mesh.data=3", "does not cover 8 devices"),
    ],
)
def test_input_that_does_not_fit_is_explained_in_one_message(setting, said, tmp_path, capsys):
    assert run(QUICKSTART, f"--workdir={tmp_path / 'run'}", setting) == 2
    assert said in capsys.readouterr().err


def test_an_unwritable_work_directory_is_an_error(capsys):
    assert run(QUICKSTART, "--workdir=/proc/run") == 2  # not even root makes folders there
    assert "cannot write to the work directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("--version", [f"score-jax {score_jax.__version__} (jax {jax.__version__}, Python "]),
        ("--help", ["--config.KEY=VALUE", "Exit status: 0 done", "  --workdir ", "  --question "]),
        (
            "--help",
            ["75 stopped by a signal after saving", f"{watchdog.HUNG} ended by the\nwatchdog"],
        ),
    ],
)
def test_version_and_help_are_printed_without_a_config(flag, shown, capsys):
    with pytest.raises(SystemExit) as ended:
        run(flag)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for text in shown:
        assert text in printed


def test_a_machine_that_gives_out_ends_with_74_and_one_message(monkeypatch, capsys, tmp_path):
    def lacks(settings, given, signals):
        raise scarce.gone("no processes are left")

    monkeypatch.setitem(main.MODES, "train", lacks)
    assert run(QUICKSTART, f"--workdir={tmp_path}") == 74
    said = capsys.readouterr().err
    assert "no processes are left" in said and said.count("\n") == 1 and "Re-running" in said


def test_a_full_disk_ends_with_74_and_one_message(monkeypatch, capsys, tmp_path):
    def full(settings, given, signals):
        raise ValueError("saving failed") from OSError(errno.ENOSPC, "no space", "x")

    monkeypatch.setitem(main.MODES, "train", full)
    assert run(QUICKSTART, f"--workdir={tmp_path}") == 74
    said = capsys.readouterr().err
    assert "bytes are free" in said and said.count("\n") == 1 and "Re-running" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_there_is_anything_to_save_ends_with_75(
    monkeypatch, capsys, tmp_path, number
):
    before = signal.getsignal(number)

    def signalled(settings, given, signals):
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    monkeypatch.setitem(main.MODES, "plan", signalled)
    assert run(QUICKSTART, f"--workdir={tmp_path}", "--mode=plan") == 75
    said = capsys.readouterr().err
    assert f"stopped by {number.name}" in said and said.count("\n") == 1
    assert signal.getsignal(number) == before


def test_a_tilde_is_the_home_folder_in_every_folder_of_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = {}

    def look(settings, given, signals):
        seen.update({name: given[name].value for name in ("workdir", "base_from", "export_dir")})
        return 0

    monkeypatch.setitem(main.MODES, "train", look)
    arguments = ("--workdir=~/x", "--base_from=~/y", "--export_dir=~/z")
    assert run(QUICKSTART, *arguments) == 0
    assert seen == {
        "workdir": f"{tmp_path}/x",
        "base_from": f"{tmp_path}/y",
        "export_dir": f"{tmp_path}/z",
    }


def test_what_a_terminal_cannot_write_is_replaced(monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    monkeypatch.setattr(main, "main", lambda argv: print("Δ of ü") or 0)
    monkeypatch.setattr(main.heap, "keep_pages", lambda: None)
    with pytest.raises(SystemExit):
        main.console()
    written.seek(0)
    assert written.read() == "? of ü\n"


def test_the_command_exits_with_2_and_no_traceback():
    command = [sys.executable, "-m", "score_jax.main", QUICKSTART, "--mode=trian"]
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("score_jax: unknown --mode=trian")
    assert "Traceback" not in done.stderr


def piped(*arguments: str) -> subprocess.Popen[str]:
    """A command whose output and error output are one pipe each, without the tests' 8 devices."""
    command = [sys.executable, "-m", "score_jax.main", *arguments]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe)


def test_help_without_a_reader_ends_quietly():
    child = piped("--help")
    child.stdout.close()
    assert child.stderr.read() == "" and child.wait(timeout=60) == 141


def test_ctrl_c_saves_and_ends_with_75_when_the_reader_has_ended_first(tmp_path):
    small = "--config.stages.base.documents_per_step=8", "--config.rollout.problems_per_step=8"
    child = piped(QUICKSTART, f"--workdir={tmp_path}", *small)
    for line in child.stdout:
        if line.startswith("base "):  # a step is done
            break
    child.stdout.close()
    child.send_signal(signal.SIGINT)
    said = child.stderr.read()
    assert child.wait(timeout=60) == 75, said
    assert "cannot be written (Broken pipe)" in said and "Traceback" not in said
    (saved,) = (tmp_path / "checkpoints" / "base").glob("[0-9]*")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == int(saved.name)
