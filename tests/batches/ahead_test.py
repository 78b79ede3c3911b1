"""What the learner runs is compiled ahead, from shapes and shardings alone."""

import dataclasses
import functools
import math
import time
from collections import Counter

import jax
import numpy as np
import pytest

from score_jax import batches
from score_jax import run as runs
from score_jax.batches import ahead
from score_jax.config.settings import LoraSettings
from score_jax.learner import step
from score_jax.runtime import ahead as jobs
from score_jax.runtime import sharding
from tests.recipes_test import tiny, with_stages

pytestmark = pytest.mark.usefixtures("quick_compile")


def made_of(sizes: dict[str, int], *_, **__):
    shape = {"data": 1, "fsdp": 1, "tensor": 1} | sizes
    devices = np.array(jax.devices()[: math.prod(shape.values())]).reshape(*shape.values())
    return jax.sharding.Mesh(devices, tuple(shape), axis_types=(jax.sharding.AxisType.Auto,) * 3)


@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        ({}, {}),
        ({}, {"data": 2, "fsdp": 2, "tensor": 1}),
        ({"dtype": "bfloat16", "lora": LoraSettings(rank=2)}, {}),
        pytest.param(
            {"dtype": "bfloat16", "lora": LoraSettings(rank=2)},
            {"data": 1, "fsdp": 2, "tensor": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param({"dtype": "bfloat16"}, {"fsdp": 1, "tensor": 2}, marks=pytest.mark.slow),
    ],
)
def test_what_is_compiled_ahead_is_what_a_step_runs(tmp_path, monkeypatch, model, mesh):
    """Its shapes and shardings are foretold, and what is foretold wrongly is compiled twice."""
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(made_of, mesh))
    settings = with_stages(tiny("score"), truncation="mask")
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, **model))
    with runs.opened(settings, tmp_path / "run", train=True) as run:
        for stage in run.stages[:2]:  # SFT, RL
            ahead.begin(run, stage)
        while jobs.is_busy():
            time.sleep(0.01)
        foretold = Counter(program.name for program in run.watch.programs if program.ahead)
        experiment = run.experiment
        params, reference = experiment.initial_params(), experiment.initial_reference()
        for stage in run.stages[:2]:
            against = reference if stage.settings.objective == "rl" else None
            source = batches.of_stage(run, stage, against)
            state = experiment.first_state(stage.settings, params)
            batch, _ = source.batch(source.dispatch(params, 1))
            state, _ = step.train_step(
                state, against, batch, stage=stage.settings, base=experiment.base, advantages=True
            )
            params = state.params
    assert foretold == {"jit(_train_step)": 2, "jit(log_probs)": 1}
    assert not {p.name for p in run.watch.programs if not p.ahead} & foretold.keys()
