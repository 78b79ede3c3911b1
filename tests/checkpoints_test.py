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
from score_jax.checkpoints import StageCheckpoints
from score_jax.learner import step
from score_jax.model import transformer
from score_jax.model.files import saved_params
from score_jax.model.files.saved_params import latest_step
from score_jax.runtime import sharding
from tests import fakes

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


def test_the_newest_and_the_best_are_kept(tmp_path):
    state = state_on(sharding.make_mesh(1, 1, 1, jax.devices()[:1]))
    folder = tmp_path / "stage1"
    with StageCheckpoints(folder, keep=2) as stage:
        for number, best in ((1, None), (2, 1), (3, 1), (4, 3), (5, 3), (6, 3)):
            stage.save(state.replace(step=jax.numpy.int32(number)), {}, best=best)
    assert sorted(int(path.name) for path in folder.iterdir()) == [3, 5, 6]


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
from score_jax.checkpoints import StageCheckpoints
from score_jax.model.files.saved_params import latest_step
from score_jax.learner.step import TrainState

def state(step):
    params = {"w": jnp.full((64, 4096), step, jnp.float32)}
    return TrainState(step=jnp.int32(step), params=params, opt_state=(), settings=None)

folder = pathlib.Path(sys.argv[1])
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


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_of_a_save_leaves_a_complete_checkpoint(tmp_path, kills):
    folder = tmp_path / "stage1"
    for _ in range(kills):
        before = latest_step(folder) or 0
        child = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        assert child.stdout.readline() == f"resumes after {before}\n"
        delay_sec = random.uniform(0.0, 0.5)
        time.sleep(delay_sec)
        child.kill()
        said = [line for line in child.stdout.read().splitlines(keepends=True) if line[-1] == "\n"]
        child.wait()
        asked = int(said[-1].split()[-1]) if said else before
        # Asking for a save waits for the one before it: at most the newest is lost.
        latest = latest_step(folder) or 0
        assert latest >= max(before, asked - 1), (asked, latest, delay_sec)
