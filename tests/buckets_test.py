"""Runs whose work directory is in a bucket: as those on disk, whatever ends them."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from score_jax.buckets.client import Folder
from tests.crashes import Crashes, Kill
from tests.crashes_test import assert_equal, recipe, until_done
from tests.emulator import BUCKET, Emulator

KILLS = {
    "lock": Kill("score_jax.workdir.lock:_take", 1, "after"),
    "config.json": Kill("score_jax.jsonfiles:os.replace", 1),
    "pretraining": Kill("score_jax.learner.step:train_step", 2, "after"),
    "before an upload": Kill("score_jax.buckets.client:Folder.upload", 3),
    "after an upload": Kill("score_jax.buckets.client:Folder.upload", 4, "after"),
    "grading": Kill("score_jax.grading:grade", 1),
    "update": Kill("score_jax.learner.step:train_step", 5, later_sec=0.01),
    "before a save": Kill("score_jax.checkpoints:StageCheckpoints.save", 1),
    "in a save": Kill("score_jax.checkpoints:StageCheckpoints.save", 1, later_sec=0.3),
    "before the marker": Kill(
        "orbax.checkpoint._src.path.atomicity:CommitFileTemporaryPath.finalize", 3
    ),
    "evaluation": Kill("score_jax.evaluation.queue:Kept.add", 1, "after"),
    "hand-over": Kill("score_jax.loop:_start_of", 1, "after"),
    "plots": Kill("score_jax.report.run_page.plots:write", 1),
    "summary": Kill("score_jax.report.run_page.summary:write", 1, "after"),
    "last upload": Kill("score_jax.workdir.spool:let_go", 1),
}


@pytest.fixture(scope="module")
def crashes(tmp_path_factory) -> Iterator[Crashes]:
    with Emulator(), Crashes(tmp_path_factory.mktemp("buckets") / "log") as found:
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_again_and_again_ends_as_one_on_disk(tmp_path, crashes, whole):
    theirs, argv = whole
    url = with_programs(theirs, f"gs://{BUCKET}/killed/run")
    reached = until_done(crashes, [*argv, f"--workdir={url}"], list(KILLS.values()))
    print(f"{reached} kills survived")
    assert reached >= 10
    ours = downloaded(url, tmp_path / "ours")
    assert_equal(ours, theirs)
    assert "Traceback" not in crashes.log.read_text()
