"""Checkpoints: on another mesh they are the same state, and a kill at any moment leaves one."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from score_jax import checkpoints
from score_jax.buckets import places
from score_jax.buckets.client import Folder
from score_jax.checkpoints import StageCheckpoints
from score_jax.learner import step
from score_jax.model import transformer
from score_jax.model.files import saved_params
from score_jax.model.files.saved_params import latest_step
from score_jax.runtime import sharding
from tests import fakes
from tests.emulator import BUCKET

pytestmark = pytest.mark.usefixtures("quick_compile")
ROOT = Path(__file__).resolve().parents[1]

MODEL = fakes.model(vocab_size=8, layers=2, heads=4, kv_heads=4, head_width=4)
STAGE = fakes.stage(learning_rate=1e-2)


def on(mesh, tree):
    """Params or a batch, laid out as a run does."""
    if isinstance(tree, dict):
        return jax.device_put(tree, sharding.params_shardings(mesh, transformer.AXES, tree))
    return jax.tree.map(lambda x: sharding.place(np.asarray(x), sharding.rows(mesh)), tree)


def state_on(mesh, seed: int = 0):
    settings = fakes.learner_settings(MODEL)
    return sharding.on_mesh(mesh, step.init(on(mesh, fakes.params(MODEL, seed)), settings))


def updated(mesh, state, seed: int):
    """(state, loss) of one more step."""
    batch = on(mesh, fakes.batch(problems=8, config=MODEL, seed=seed))
    reference = on(mesh, fakes.params(MODEL))
    state, metrics = step.train_step(state, reference, batch, stage=STAGE)
    return state, float(metrics["loss"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory, quick_compile) -> tuple[Path, float]:
    """A checkpoint of step 2 on eight devices, and the loss of step 3 there."""
    folder = tmp_path_factory.mktemp("saved") / "stage1"
    mesh = sharding.make_mesh(2, 2, 2)
    state = state_on(mesh)
    for seed in (1, 2):
        state, _ = updated(mesh, state, seed)
    with StageCheckpoints(folder, keep=2) as stage:
        stage.save(state, {"data": {"next_batch": 2}})
    return folder, updated(mesh, state, 3)[1]


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1),
        (2, 1, 2),
        pytest.param((1, 2, 1), marks=pytest.mark.slow),
        (1, 4, 2),
        pytest.param((8, 1, 1), marks=pytest.mark.slow),
        pytest.param((2, 1, 4), marks=pytest.mark.slow),
    ],
)
def test_what_eight_devices_saved_goes_on_on_other_meshes(saved, sizes):
    folder, wanted = saved
    mesh = sharding.make_mesh(*sizes, jax.devices()[: np.prod(sizes)])
    with StageCheckpoints(folder, keep=2) as stage:
        state, extra = stage.state(2, state_on(mesh, seed=9))
    assert extra == {"data": {"next_batch": 2}}
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(state.params))
    for moment, param in zip(moments, 2 * jax.tree.leaves(state.params), strict=True):
        assert moment.sharding.is_equivalent_to(param.sharding, param.ndim)
    assert updated(mesh, state, 3)[1] == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.fixture
def stage1(request, tmp_path) -> Path:
    """A stage's folder, on disk or in a bucket."""
    if request.param == "bucket":
        request.getfixturevalue("store")
        places.stands_for(tmp_path, f"gs://{BUCKET}/{tmp_path.name}")
    return tmp_path / "checkpoints" / "stage1"


@pytest.mark.parametrize(
    "stage1", ["disk", pytest.param("bucket", marks=pytest.mark.slow)], indirect=True
)
def test_the_newest_and_the_best_are_kept(stage1):
    state = state_on(sharding.make_mesh(1, 1, 1, jax.devices()[:1]))
    folder = stage1
    with StageCheckpoints(folder, keep=2) as stage:
        for number, best in ((1, None), (2, 1), (3, 1), (4, 3), (5, 3), (6, 3)):
            stage.save(state.replace(step=jax.numpy.int32(number)), {}, best=best)
    found = places.checkpoints_in(folder.parent)
    assert sorted(int(path.name) for path in found) == [3, 5, 6] and latest_step(folder) == 6


def test_in_a_bucket_a_checkpoint_without_its_marker_is_none_and_is_saved_again(tmp_path, store):
    url = f"gs://{BUCKET}/{tmp_path.name}/stage1"
    stage1 = places.stands_for(tmp_path, url.removesuffix("/stage1")) / "stage1"
    first, second = (
        state_on(sharding.make_mesh(1, 1, 1, jax.devices()[:1]), seed=n) for n in (1, 2)
    )
    for number, state in ((4, first), (5, first), (5, second)):
        with StageCheckpoints(stage1, keep=2) as stage:
            stage.save(state.replace(step=jax.numpy.int32(number)), {"data": number})
        Folder(url).upload("5/state/left/over", b"of a save that was killed")
        if state is first:
            Folder(url).delete("5/commit_success.txt")
            assert latest_step(stage1) == 4
    with StageCheckpoints(stage1, keep=2) as stage:
        restored, extra = stage.state(5, first)
    assert extra == {"data": 5}
    jax.tree.map(np.testing.assert_array_equal, restored.params, second.params)
    Folder(url).delete("5/state/_METADATA")
    Folder(url).delete("5/state/manifest.ocdbt")
    with StageCheckpoints(stage1, keep=2) as stage, pytest.raises(saved_params.Damaged) as error:
        stage.state(5, first)
    assert error.value.path == stage1 / "5"


def test_a_checkpoint_with_any_file_cut_or_missing_is_damaged_and_never_wrong(tmp_path):
    state = state_on(sharding.make_mesh(1, 1, 1, jax.devices()[:1]))
    folder = tmp_path / "stage1"
    with StageCheckpoints(folder, keep=2) as stage:
        stage.save(state, {"data": 5})
    step = str(int(state.step))
    whole, found = tmp_path / "whole", []
    (folder / step).rename(whole)
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        for harm in ("cut", "gone"):
            shutil.rmtree(folder)
            folder.mkdir()
            shutil.copytree(whole, folder / step)
            victim = folder / step / path.relative_to(whole)
            if harm == "cut":
                os.truncate(victim, victim.stat().st_size // 2)
            else:
                victim.unlink()
            try:
                with StageCheckpoints(folder, keep=2) as stage:
                    restored, extra = stage.state(int(step), state)
            except saved_params.Damaged as error:
                assert error.path == folder / step
                found.append(path.name)
                continue
            # Some files are not needed.
            assert extra == {"data": 5}
            jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)
            jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)
    assert len(found) >= 4


def test_what_ends_after_a_failed_save_is_not_printed_and_everything_else_is():
    async def read():
        pass

    printed, late, bug = [], read(), ValueError("a bug")
    hook = checkpoints._unless_late(printed.append)
    hook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed"), object=None))
    hook(SimpleNamespace(exc_value=bug, object=late))
    late.close()
    hook(SimpleNamespace(exc_value=bug, object=None))
    assert [found.exc_value for found in printed] == [bug]


# Saves step after step, each of its own value, and says which save has been asked for.
SAVES_FOR_EVER = """
import pathlib, sys
import jax.numpy as jnp
from score_jax.buckets import places
from score_jax.checkpoints import StageCheckpoints
from score_jax.model.files.saved_params import latest_step
from score_jax.learner.step import TrainState

def state(step):
    params = {"w": jnp.full((64, 4096), step, jnp.float32)}
    return TrainState(step=jnp.int32(step), params=params, opt_state=(), settings=None)

folder = pathlib.Path(sys.argv[1])
if sys.argv[2]:
    places.stands_for(folder.parent, sys.argv[2])
with StageCheckpoints(folder, keep=2) as saved:
    done = latest_step(folder) or 0
    if done:
        restored, extra = saved.state(done, state(0))
        assert extra == {"next": done} and (restored.params["w"] == done).all(), extra
    print("resumes after", done, flush=True)
    for step in range(done + 1, 1_000_000):
        saved.save(state(step), {"next": step})
        print("asked for", step, flush=True)
"""


@pytest.mark.parametrize(
    ("stage1", "kills"),
    [
        ("disk", 3),
        pytest.param("disk", 20, marks=pytest.mark.slow),
        pytest.param("bucket", 20, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    indirect=["stage1"],
)
def test_a_kill_at_any_moment_of_a_save_leaves_a_complete_checkpoint(stage1, kills):
    folder, most_sec = stage1, 2.0 if places.url_of(stage1) else 0.5
    for _ in range(kills):
        before = latest_step(folder) or 0
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(folder), places.url_of(folder.parent)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        assert child.stdout.readline() == f"resumes after {before}\n"
        delay_sec = random.uniform(0.0, most_sec)
        time.sleep(delay_sec)
        child.kill()
        said = [line for line in child.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
        child.wait()
        asked = int(said[-1].split()[-1]) if said else before
        # Asking for a save waits for the one before it: at most the newest is lost.
        latest = latest_step(folder) or 0
        assert latest >= max(before, asked - 1), (asked, latest, delay_sec)
