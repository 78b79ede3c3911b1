"""Several processes on one machine, with a stand-in for Python."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.fakes import ROOT, Tools

STAND_IN = """#!/usr/bin/env bash
[[ "$1" == -c ]] && { echo 4321; exit; }  # asked for a free port
trap 'exit 75' TERM
trap 'exit 76' USR1
trap 'exit 77' HUP
echo "ready: $*"
[[ "$*" == *--fail* && "$*" == *--process=1* ]] && exit 3
[[ "$*" == *--fail* ]] && exit 75
while :; do sleep 0.02; done
"""


def launcher(folder: Path) -> list[str]:
    (folder / "launch").mkdir()
    for name in ("setup.sh", "common.sh", "local_processes.sh"):
        (folder / "launch" / name).write_text((ROOT / "launch" / name).read_text())
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return ["bash", str(folder / "launch" / "local_processes.sh")]


ARGUMENTS = ("--config=c.py", "--workdir=my run")


def test_a_dry_run_prints_the_commands(tmp_path):
    command = [*launcher(tmp_path), "2", "--dry-run", *ARGUMENTS]
    done = subprocess.run(command, capture_output=True, text=True)
    start = f"{tmp_path}/.venv/bin/python -m score_jax.main --coordinator=127.0.0.1:PORT"
    assert done.stdout.splitlines() == [
        f"{start} --processes=2 --process={i} --config=c.py '--workdir=my run'" for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (ARGUMENTS, "number of processes is missing"),
        (("2", "--workdir=w"), "--config=FILE is missing"),
        (("2", "--config=c.py", "--workdir=s3://bucket/run"), "of buckets only gs:// is known"),
    ],
)
def test_what_the_program_would_refuse_is_refused_once(arguments, said, tmp_path):
    done = subprocess.run([*launcher(tmp_path), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and not done.stdout


# Of the stand-in: 75 where it was told to save by TERM, 76 by USR1, 77 by HUP.
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 75),
        (signal.SIGINT, 75),
        (signal.SIGUSR1, 76),
        (signal.SIGHUP, 77),
    ],
)
def test_signals_are_passed_on(number, status, tmp_path):
    _, script = launcher(tmp_path)
    tools = Tools(tmp_path / "tools")
    running = tools.start(script, "3", *ARGUMENTS)
    assert running.stdout
    ready = sorted(running.stdout.readline() for _ in range(3))
    assert [line[:11] for line in ready] == ["[0] ready: ", "[1] ready: ", "[2] ready: "]
    assert all("--coordinator=127.0.0.1:4321 --processes=3" in line for line in ready)
    running.send_signal(number)
    assert tools.finish(running).returncode == status


def test_the_worst_exit_status_is_told(tmp_path):
    command = [*launcher(tmp_path), "2", *ARGUMENTS, "--fail"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 3
