"""Runs whose work directory is in a bucket: as those on disk, whatever ends them."""

import functools
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from score_jax.buckets import places
from score_jax.buckets.client import Folder
from score_jax.report.compare import __main__ as compare
from score_jax.report.comparison import tables
from score_jax.report.run_page import __main__ as run_page
from score_jax.workdir import lock
from tests.crashes import KILLED, ROOT, Crashes, Kill
from tests.crashes_test import assert_equal, own_problems, recipe, until_done
from tests.emulator import BUCKET, Line, environment
from tests.loop_test import metrics_of
from tests.splits_test import in_two_processes

SCALING = (
    "--config.scaling.solutions=2",
    "--config.scaling.batch=8",
    "--config.evaluation.problems=4",
)
KILLS = {  # each is reached by the run that resumes after the one before it
    "lock": Kill("score_jax.workdir.lock:_take", 1, "after"),
    "config.json": Kill("score_jax.jsonfiles:os.replace", 1),
    "pretraining": Kill("score_jax.learner.step:train_step", 2, "after"),
    "before an upload": Kill("score_jax.buckets.client:Folder.upload", 3),
    "after an upload": Kill("score_jax.buckets.client:Folder.upload", 4, "after"),
    "grading": Kill("score_jax.grading:grade", 1),
    "update": Kill("score_jax.learner.step:train_step", 2, later_sec=0.01),
    "before a save": Kill("score_jax.checkpoints:StageCheckpoints.save", 1),
    "in a save": Kill("score_jax.checkpoints:StageCheckpoints.save", 1, later_sec=0.3),
    "before the marker": Kill(
        "orbax.checkpoint._src.path.atomicity:CommitFileTemporaryPath.finalize", 3
    ),
    "evaluation": Kill("score_jax.evaluation.queue:Kept.add", 1, "after"),
    "later update": Kill("score_jax.learner.step:train_step", 1, "after"),
    "hand-over": Kill("score_jax.loop:_start_of", 1, "after"),
    "plots": Kill("score_jax.report.run_page.plots:write", 1),
    "summary": Kill("score_jax.report.run_page.summary:write", 1, "after"),
    "last upload": Kill("score_jax.workdir.spool:let_go", 1),
}


@pytest.fixture(scope="module")
def crashes(tmp_path_factory, store) -> Iterator[Crashes]:
    with Crashes(tmp_path_factory.mktemp("buckets") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, crashes) -> tuple[Path, list[str]]:
    """An unbroken run on disk, and its arguments."""
    folder = tmp_path_factory.mktemp("whole")
    argv = recipe("score", folder)
    assert crashes.run([*argv, f"--workdir={folder / 'run'}"]) == 0, crashes.log.read_text()
    return folder / "run", argv


def with_programs(run: Path, url: str) -> str:
    """A work directory in the bucket that has nothing but the compiled programs of a run."""
    archive = run.parent / "programs.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(run / "compile_cache", "compile_cache")
    Folder(url).upload("compile_cache.tar", archive)
    return url


def downloaded(url: str, folder: Path) -> Path:
    """A copy on disk of what is in the bucket."""
    found = Folder(url)
    for name in found.files():
        found.download(name, folder / name)
    return folder


def arguments(argv: list[str], url: str, *more: str) -> list[str]:
    return [*argv, f"--workdir={url}", *more]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_again_and_again_ends_as_one_on_disk(tmp_path, crashes, whole):
    theirs, argv = whole
    url = with_programs(theirs, f"gs://{BUCKET}/killed/run")
    argv = arguments(argv, url)
    reached = [name for name, kill in KILLS.items() if crashes.run(argv, kill) == KILLED]
    assert crashes.run(argv) == 0
    print(f"{len(reached)} kills survived: {', '.join(reached)}")
    assert len(reached) >= 14, crashes.log.read_text()[-3000:]
    assert_equal(downloaded(url, tmp_path / "ours"), theirs)
    assert "Traceback" not in crashes.log.read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, crashes, whole) -> str:
    """The run on disk, copied into the bucket."""
    theirs, _ = whole
    url = with_programs(theirs, f"gs://{BUCKET}/finished/run")
    for path in theirs.rglob("*"):
        if path.is_file() and "compile_cache" not in path.parts:
            Folder(url).upload(path.relative_to(theirs).as_posix(), path)
    return url


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_modes_read_a_run_in_a_bucket(tmp_path, crashes, whole, finished):
    theirs, argv = whole
    there, before = Folder(finished), Folder(finished).files()
    run = functools.partial(arguments, argv, finished)
    for more in (
        [],  # it is finished, and says so
        ["--mode=try", "--question=3+8+6"],
        ["--mode=export"],
        ["--mode=export", f"--export_dir=gs://{BUCKET}/exported/own"],
        ["--mode=export", f"--export_dir={tmp_path / 'disk'}"],
    ):
        assert crashes.run(run(*more)) == 0, crashes.log.read_text()[-3000:]
    assert crashes.run(run("--mode=export", f"--export_dir={finished}")) == 2
    assert there.files() == before | there.files("export/")
    exported = Folder(f"gs://{BUCKET}/exported/own")
    for folder, start in ((there, "export/"), (exported, "")):
        weights = folder.read(f"{start}model.safetensors")
        assert weights[0] == (tmp_path / "disk" / "model.safetensors").read_bytes()
    assert crashes.run(run("--mode=evaluate")) == 0
    own = shutil.copytree(theirs, tmp_path / "own")  # other tests compare with theirs
    assert crashes.run([*argv, f"--workdir={own}", "--mode=evaluate"]) == 0
    latest = "evaluations/latest.json"
    assert there.read(latest)[0] == (own / latest).read_bytes()
    assert crashes.run(run("--mode=scale", *SCALING)) == 0, crashes.log.read_text()[-3000:]
    assert "scaling/stage2.json" in there.files()
    assert "Traceback" not in crashes.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["bucket", "disk"])
def test_a_run_begins_with_the_base_model_of_one_in_a_bucket(
    tmp_path, crashes, whole, finished, place
):
    """Killed while it is copied, too; and weights of a run in a bucket are a source."""
    theirs, argv = whole
    made = tmp_path / "made"
    assert crashes.run([*argv, f"--workdir={made}", f"--base_from={theirs}"]) == 0
    workdir = f"gs://{BUCKET}/from_base/run" if place == "bucket" else str(tmp_path / "run")
    own = [*argv, f"--workdir={workdir}", f"--base_from={finished}"]
    method = "copy" if place == "bucket" else "download"
    kills = [Kill(f"score_jax.buckets.client:Folder.{method}", call, "after") for call in (4, 20)]
    assert until_done(crashes, own, kills) >= 1
    ours = downloaded(workdir, tmp_path / "ours") if place == "bucket" else Path(workdir)
    assert_equal(ours, made)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_and_problems_are_read_from_a_bucket(tmp_path, crashes, whole, finished):
    """Of a run, of a checkpoint of it, of an exported folder."""
    theirs, argv = whole
    exported = f"gs://{BUCKET}/exported/model"
    assert (
        crashes.run([*argv, f"--workdir={finished}", "--mode=export", f"--export_dir={exported}"])
        == 0
    )
    own = Path(own_problems(tmp_path, 40))
    Folder(f"gs://{BUCKET}/problems").upload(own.name, own)
    found = []
    for source, problems in (
        (finished, f"gs://{BUCKET}/problems/{own.name}"),
        (str(theirs), str(own)),
        (exported, str(own)),
        (f"{finished}/checkpoints/stage1/4", str(own)),
    ):
        more = [f"--config.model.source={source}", "--config.model.tokenizer=characters"]
        more += ["--config.problems.name=jsonl", f"--config.problems.path={problems}"]
        workdir = tmp_path / str(len(found))
        assert crashes.run([*argv, *more, f"--workdir={workdir}", "--mode=evaluate"]) == 0
        found.append((workdir / "transcripts" / "latest.jsonl").read_bytes())
    assert found[0] == found[1] == found[2] != found[3]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pages_and_tables_are_made_of_runs_in_a_bucket(tmp_path, whole, finished, capsys):
    theirs, _ = whole
    there = Folder(finished)
    there.delete("report/index.html")
    run_page.main([finished])
    assert f"{finished}/report/index.html\n" in capsys.readouterr().out
    assert there.read("report/index.html")
    compare.main([finished, str(theirs), f"--out={tmp_path / 'both.html'}"])
    assert finished in (tmp_path / "both.html").read_text()
    capsys.readouterr()
    tables.main([f"--runs={theirs}"])
    wanted = capsys.readouterr().out
    for named in (finished, finished.rpartition("/")[0]):
        tables.main([f"--runs={named}"])
        assert capsys.readouterr().out == wanted


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_second_run_is_refused(tmp_path, crashes, whole):
    _, argv = whole
    url = f"gs://{BUCKET}/held/run"
    with lock.held(places.stands_for(tmp_path, url)):
        before = crashes.log.stat().st_size
        assert crashes.run(arguments(argv, url)) == 2
        assert f"is at work in {url}, and two runs" in crashes.log.read_bytes()[before:].decode()
        assert list(Folder(url).files()) == ["lock.json"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_write_one_run(tmp_path, store):
    url = f"gs://{BUCKET}/two/run"
    assert in_two_processes(tmp_path / "disk").returncode == 0
    stopped = in_two_processes(tmp_path, f"--workdir={url}", SIGTERM_IN="rollout")
    assert stopped.returncode == 75, stopped.stdout + stopped.stderr
    finished = in_two_processes(tmp_path, f"--workdir={url}")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "resumes at stage1, step 3" in finished.stdout
    ours, theirs = downloaded(url, tmp_path / "ours"), tmp_path / "disk" / "run"
    assert metrics_of(ours) == metrics_of(theirs)
    assert any("process_1" in name for name in Folder(url).files("checkpoints/stage2/2/"))
    for name in ("transcripts/stage2.jsonl", "evaluations/stage2.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


CUT = """
import os, sys
from score_jax.buckets import client
client.LOST_SEC = float(os.environ["LOST_SEC"])
from score_jax import main
main.console()
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "moment", ["checkpoints/base/3/commit_success.txt", "checkpoints/stage1/2/"]
)
@pytest.mark.parametrize("seconds", [20, 60])
def test_a_lost_connection_is_ridden_out_or_an_end(
    tmp_path, crashes, whole, moment, seconds, store
):
    """Of 20 s it is ridden out. Of longer than the bound, here of 10 s, it is an end with 74."""
    theirs, argv = whole
    url = with_programs(theirs, f"gs://{BUCKET}/lost/{seconds}/{moment.replace('/', '-')}/run")
    argv, there = arguments(argv, url), Folder(url)
    line = Line(store.address)
    lost_sec = "600" if seconds == 20 else "10"
    settings = {**os.environ, **environment(line.address), "LOST_SEC": lost_sec}
    settings |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": ""}
    log = tmp_path / "log"
    with open(log, "w") as out:
        run = subprocess.Popen(
            [sys.executable, "-c", CUT, *argv], cwd=ROOT, env=settings, stdout=out, stderr=out
        )
        while not there.files(moment):
            assert run.poll() is None, log.read_text()
            time.sleep(0.02)
        line.cut()
        began = time.monotonic()
        if seconds == 20:
            time.sleep(20)
            line.join()
        status = run.wait()
    said = log.read_text()
    print(f"{moment}: status {status} after {time.monotonic() - began:.0f} s")
    assert "Traceback" not in said, said
    if seconds == 20:
        assert status == 0, said
    else:
        assert status == 74, said
        assert said.count("could not be reached") == 1 and said.endswith("Re-running resumes.\n")
        # Its lock names a process of this machine that is gone.
        assert crashes.run(argv) == 0
    assert_equal(downloaded(url, tmp_path / "ours"), theirs)
