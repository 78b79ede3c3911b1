"""launch/tpu_worker.sh on this machine, with a program in place of the training."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.fakes import ROOT, Tools, wait_until

# In place of score_jax.main: tells its words, then waits for what it is called to wait for.
PROGRAM = """#!{python}
import os, pathlib, signal, sys, time
here = pathlib.Path({here!r})
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
(here / "started").open("a").write("x")
print(sys.argv[3:], pathlib.Path.cwd().name, flush=True)
while not heard and not (here / "end").exists():
    time.sleep(0.02)
sys.exit(75 if heard else int((here / "end").read_text()))
"""
RUN = ("--config=c.py", "--workdir=/w", "two  words")


pytestmark = pytest.mark.skipif(not shutil.which("flock"), reason="workers are Linux machines")


@pytest.fixture
def worker(tmp_path):
    """A repository with the scripts and a .venv whose Python is the program above."""
    tools = Tools(tmp_path)
    home = tmp_path / "home"
    shutil.copytree(ROOT / "launch", home / "score_jax" / "launch")
    (home / "score_jax" / ".venv" / "bin").mkdir(parents=True)
    program = home / "score_jax" / ".venv" / "bin" / "python"
    python = shutil.which("python3")
    program.write_text(PROGRAM.format(python=python, here=str(tmp_path)))
    program.chmod(0o755)
    yield Worker(tools, home)
    (tmp_path / "end").write_text("0")  # a training that was left running ends


class Worker:
    def __init__(self, tools: Tools, home: Path):
        self.tools, self.folder, self.home = tools, tools.folder, home
        self.script = str(home / "score_jax" / "launch" / "tpu_worker.sh")
        self.own = {"HOME": str(home), "HOSTNAME": "t1v-n-abc-w-3"}
        self.own["MOUNT_POINT"] = str(home / "mnt")

    def start(self, *words: str) -> subprocess.Popen:
        return self.tools.start(self.script, *words, **self.own)

    def run(self, *words: str) -> subprocess.CompletedProcess:
        return self.tools.finish(self.start(*words))

    def begun(self) -> int:
        """How many trainings were started."""
        path = self.folder / "started"
        return len(path.read_text()) if path.exists() else 0

    def end(self, status: int) -> None:
        half = self.folder / "half an end"
        half.write_text(str(status))
        half.rename(self.folder / "end")  # at once: the training may be looking


def test_the_training_gets_its_words_and_gives_its_log_and_status(worker):
    worker.end(2)
    done = worker.run("run", "1", *RUN)
    assert done.returncode == 2, done.stderr
    assert done.stdout == f"[3] {list(RUN)} score_jax\n"


def test_a_broken_connection_leaves_the_training_alone_and_the_next_one_shows_it(worker):
    first = worker.start("run", "1", *RUN)
    wait_until(worker.begun)
    worker.tools.hang_up(first)
    second = worker.start("run", "2", *RUN)
    assert second.stdout.readline() == "[3] The training runs already; its log continues here.\n"
    worker.end(0)
    assert second.stdout.read() == f"[3] {list(RUN)} score_jax\n"
    assert worker.tools.finish(second).returncode == 0 and worker.begun() == 1


def test_what_ended_unseen_is_told_once_more_and_not_run_again(worker):
    first = worker.start("run", "1", *RUN)
    wait_until(worker.begun)
    worker.tools.hang_up(first)
    worker.end(75)
    wait_until((worker.home / ".score_jax" / "status").exists)
    done = worker.run("run", "1", *RUN)
    assert done.returncode == 75 and "ended while nobody was connected" in done.stdout
    assert worker.begun() == 1
    # Another start is another run.
    assert worker.run("run", "2", *RUN).returncode == 75
    assert worker.begun() == 2


def test_another_training_is_refused_while_one_is_under_way(worker):
    first = worker.start("run", "1", *RUN)
    wait_until(worker.begun)
    done = worker.run("run", "2", *RUN, "--config.seed=1")
    assert done.returncode == 2 and "Another training runs" in done.stderr
    worker.end(0)
    assert worker.tools.finish(first).returncode == 0


def test_stop_makes_it_save(worker):
    first = worker.start("run", "1", *RUN)
    wait_until(worker.begun)
    assert worker.run("stop").returncode == 0
    assert worker.tools.finish(first).returncode == 75
    done = worker.run("stop")
    assert done.returncode == 0 and "No training runs" in done.stdout


def test_the_status_of_a_broken_connection_is_never_a_trainings_own(worker):
    worker.end(255)
    assert worker.run("run", "1", *RUN).returncode == 1


def prepared(worker, mount: str) -> subprocess.CompletedProcess:
    """`prepare` where everything is installed already and sudo only notes what it was told."""
    venv = worker.home / "score_jax" / ".venv"
    (worker.home / "score_jax" / "requirements.txt").touch()
    (worker.home / "score_jax" / "pyproject.toml").touch()
    total = subprocess.run(["cksum"], input=b"", capture_output=True, check=True).stdout
    (venv / "installed.tpu,hub,gcs").write_bytes(total)
    (venv / "bin" / "python").write_text("#!/bin/sh\necho 3.12\n")
    (worker.home / "mnt").mkdir()
    worker.tools.answer("sudo", "")
    worker.tools.answer("mountpoint", "", status=1)
    worker.tools.answer("gcsfuse", "")
    worker.tools.answer("mount.nfs", "")
    return worker.run("prepare", mount)


def test_a_bucket_is_mounted_without_cached_metadata(worker):
    done = prepared(worker, "gs://bucket")
    assert done.returncode == 0, done.stderr
    (call,) = worker.tools.calls("gcsfuse")
    assert call[-2:] == ["bucket", str(worker.home / "mnt")]
    assert "--metadata-cache-ttl-secs=0" in call
    assert not list((worker.home / "mnt").iterdir())


def test_a_share_is_mounted(worker):
    done = prepared(worker, "10.0.0.2:/runs")
    assert done.returncode == 0, done.stderr
    wanted = ["mount", "-t", "nfs", "10.0.0.2:/runs", str(worker.home / "mnt")]
    assert wanted in worker.tools.calls("sudo")


def test_storage_that_cannot_rename_folders_is_refused(worker):
    worker.tools.answer("mv", "", status=1)
    done = prepared(worker, "gs://flat")
    assert done.returncode == 2 and "--enable-hierarchical-namespace" in done.stderr
    assert not list((worker.home / "mnt").iterdir())


def test_nothing_is_mounted_where_nothing_was_asked_for(worker):
    done = prepared(worker, "")
    assert done.returncode == 0 and not worker.tools.calls("gcsfuse")
