"""The stages of a run, and how many copies of the weights the modes hold."""

import dataclasses
import errno
import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from score_jax import checkpoints, loop
from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.model import families, weights
from score_jax.model.files import saved_params
from score_jax.modes import ask, evaluate, export, scale
from score_jax.problem import InputError
from score_jax.rollout import episode
from score_jax.run import Run, stages_of
from score_jax.workdir.runlog import RunLog
from tests.loop_test import AfterCalls, Crash, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_a_full_disk_ends_the_run_in_its_report_too_and_other_errors_are_logged(tmp_path):
    run = mock.Mock(folder=tmp_path)
    write = mock.Mock(__module__="plots", side_effect=ValueError("no numbers"))
    Run.report(run, write)
    run.log.say.assert_called_once_with("plots failed: ValueError: no numbers")
    write.side_effect = OSError(errno.ENOSPC, "no space left on device")
    with pytest.raises(OSError, match="no space"):
        Run.report(run, write)


def test_pages_before_a_stages_end_take_a_fiftieth_of_the_time_at_most(tmp_path):
    run = mock.Mock(folder=tmp_path, _report_after=0.0)
    page = mock.Mock(side_effect=lambda _: time.sleep(0.02))
    began = time.monotonic()
    for _ in range(1000):
        Run.report(run, page, seldom=True)
    assert page.call_count <= 1 + (time.monotonic() - began) / 1.0
    Run.report(run, page)
    assert page.call_count >= 2


def test_a_stage_knows_its_place_in_the_recipe():
    settings = tiny_settings()
    base, stage1, stage2 = stages_of(settings)
    assert [stage.name for stage in (base, stage1, stage2)] == ["base", "stage1", "stage2"]
    assert [stage.steps_before for stage in (base, stage1, stage2)] == [0, 3, 7]
    assert [stage.rl_steps_before for stage in (base, stage1, stage2)] == [0, 0, 4]
    keys = {jax.random.key_data(stage.key).tobytes() for stage in (base, stage1, stage2)}
    assert len(keys) == 3
    assert [n for n in range(5) if stage1.evaluates(n, every=2)] == [2]
    assert not any(stage1.evaluates(n, every=0) for n in range(5))


def test_a_stage_without_steps_leaves_the_params_of_the_stage_before_it(tmp_path):
    settings = tiny_settings(recipe=("base", "stage1"))
    still = dataclasses.replace(settings.stages["stage1"], steps=0)
    settings = dataclasses.replace(settings, stages={**settings.stages, "stage1": still})
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    with RunLog(tmp_path, writes=False) as log:
        run = Run.start(settings, tmp_path, log, None)  # type: ignore[arg-type]
    stage, at_step, params = run.newest_params()
    assert (stage.name, at_step) == ("stage1", 0)
    jax.tree.map(np.testing.assert_array_equal, params, run.params_of("base"))


# Memory


@pytest.fixture(scope="module", params=[pytest.param("preset", marks=pytest.mark.slow), "loaded"])
def trained(request, tmp_path_factory, quick_compile) -> tuple[loop.Settings, Path]:
    """Settings and folder of a run that was killed after the save of step 2 of stage1."""
    settings = tiny_settings(recipe=("stage1",))
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "loaded":
        source = str(folder / "source")
        config = families.preset(settings.model.source)
        params = Experiment.open(settings).initial_params()
        weights.save(source, config, params, extra={"eos_token_id": 2})
        model = dataclasses.replace(settings.model, source=source, tokenizer="characters")
        settings = dataclasses.replace(settings, model=model)
    with pytest.raises(Crash):  # asked before the evaluation, in it twice, and at each step
        loop.train(settings, str(folder / "run"), stop=AfterCalls(5, Crash))
    assert saved_params.latest_step(folder / "run" / "checkpoints" / "stage1") == 2
    return settings, folder / "run"


@contextmanager
def copies_at(owner, name: str, found: list[float], one: int) -> Iterator[None]:
    """Notes, before and after each call, how many times `one` bytes live arrays take."""
    called = getattr(owner, name)

    def noted(*arguments, **named):
        found.append((live_bytes() - before) / one)
        result = called(*arguments, **named)
        found.append((live_bytes() - before) / one)
        return result

    gc.collect()
    before = live_bytes()
    with mock.patch.object(owner, name, noted):
        yield


def live_bytes() -> int:
    """On all devices. Shards are not asked for their data, as that makes more arrays."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize * len(x.sharding.device_set)
        for x in jax.live_arrays()
        if not x.is_deleted() and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


def bytes_of_weights(settings) -> int:
    """On all devices: each of the eight holds a copy."""
    shapes = Experiment.open(settings).param_shapes()
    return jax.device_count() * 4 * sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


MODES = {
    "evaluate": (lambda s, folder: evaluate.evaluate_latest(s, folder), episode, "run"),
    "scale": (lambda s, folder: scale.scale_latest(s, folder), episode, "run"),
    "export": (lambda s, folder: export.export_latest(s, folder), weights, "save"),
    "try": (lambda s, folder: ask.ask_latest(s, folder, "3+4"), episode, "run"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_holds_its_weights_once(trained, mode):
    settings, folder = trained
    do, owner, name = MODES[mode]
    one, found = bytes_of_weights(settings), []
    with (
        copies_at(saved_params, "restore", found, one),
        copies_at(owner, name, found, one),
    ):
        do(settings, folder)
    assert found[0] < 0.1, "weights that the checkpoint replaces were loaded"
    assert 0.99 < max(found) < 1.2, found  # batches and rows are small beside the weights


def test_a_resumed_run_holds_weights_moments_and_reference_once(trained):
    settings, folder = trained
    one, found = bytes_of_weights(settings), []
    with (
        copies_at(checkpoints.StageCheckpoints, "state", found, one),
        copies_at(step, "train_step", found, one),
        pytest.raises(Crash),
    ):
        loop.train(settings, str(folder), stop=AfterCalls(1, Crash))
    assert found[0] < 1.2, found  # the reference
    assert 3.99 < found[1] < 4.2, found
    assert max(found) < 5.0, found  # while an update runs, its batch and metrics beside them


def test_params_are_restored_alone_and_only_into_their_own_shapes(trained):
    settings, folder = trained
    path = folder / "checkpoints" / "stage1" / "2"
    shapes = Experiment.open(settings).param_shapes()
    params = saved_params.restore(path, shapes)
    with checkpoints.StageCheckpoints(path.parent, keep=9) as saved:
        opened = Experiment.open(settings)
        state, _ = saved.state(2, opened.state_shapes(settings.stages["stage1"]))
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s.sharding, x.ndim), params, shapes)
    wider = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] + 1), x.dtype), shapes
    )
    with pytest.raises(loop.settings_check.InputError, match="cannot be read as this model's"):
        saved_params.restore(path, wider)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (("base", "stage1"), "the stage 'stage1' samples with those of its latest step"),
        (("base",), "where a stage collects documents, and no stage of config.recipe"),
    ],
)
def test_an_engine_is_refused_where_training_would_not_use_it(tmp_path, recipe, says):
    settings = tiny_settings(recipe=recipe)
    rollout = dataclasses.replace(settings.rollout, engine="socket:/nobody")
    with pytest.raises(InputError, match=says):
        loop.train(dataclasses.replace(settings, rollout=rollout), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()
