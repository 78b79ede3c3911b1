"""Whole runs, split over devices and processes: each is the run of one device.

Both stages, evaluations, checkpoints and a resume. Sampled ids are the same, numbers equal up to
rounding.
"""

import dataclasses
import functools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from score_jax import loop
from score_jax.batches import episodes
from score_jax.config.command_line import settings_of
from score_jax.model.files import saved_params
from score_jax.run import Run
from score_jax.runtime import sharding
from tests import fakes
from tests.loop_test import metrics_of

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("quick_compile")

# Process 1 gets SIGTERM in step 3 of stage1, while what {where} queued is on the devices.
CONFIG = """
import os, signal, sys
from configs import quickstart

def get_config(recipe="score"):
    config = quickstart.get_config()
    config.recipe = ("stage1", "stage2")
    config.stages.stage1.steps, config.stages.stage2.steps = 4, 2
    config.rollout.problems_per_step, config.rollout.samples_per_problem = 8, 4
    config.rollout.turn_rows = 4
    config.evaluation.problems, config.evaluation.batch = 12, 8
    config.checkpoint.every = 100
    # Adam makes a step of any gradient, even of one that is rounding alone.
    config.optimizer.epsilon = 1e-3
    return config

where = os.environ.get("SIGTERM_IN")
if where and "--process=1" in sys.argv:
    from score_jax.batches.episodes import Episodes
    from score_jax.learner import step

    calls = []

    def with_signal(call):
        def counted(*arguments, **more):
            result = call(*arguments, **more)
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return result
        return counted

    if where == "rollout":
        Episodes.dispatch = with_signal(Episodes.dispatch)
    else:
        step.train_step = with_signal(step.train_step)
"""


def in_two_processes(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """The run of CONFIG in `folder`, each process with two devices."""
    return in_processes(2, folder, *more, **environment)


def in_processes(
    count: int, folder: Path, *more: str, **environment: str
) -> subprocess.CompletedProcess:
    """The run of CONFIG in `folder`; up to four processes have two devices, more have one."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    config = folder / "configs" / "two.py"
    config.write_text(CONFIG)
    devices = 2 if count <= 4 else 1
    flags = re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])
    return subprocess.run(
        [
            *("bash", "launch/local_processes.sh", str(count)),
            *(f"--config={config}", f"--workdir={folder / 'run'}", *more),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "XLA_FLAGS": flags,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300 * count // 2,
    )


@dataclasses.dataclass
class Found:
    """What a run leaves."""

    metrics: list[dict[str, Any]]
    evaluations: dict[str, str]
    texts: list[list[str]]  # of the last evaluation


def found_in(run: Path) -> Found:
    files = sorted((run / "evaluations").iterdir())
    lines = (run / "transcripts" / "stage2.jsonl").read_text().splitlines()
    return Found(
        metrics_of(run),
        {path.name: path.read_text() for path in files},
        [[attempt["text"] for attempt in row["attempts"]] for row in map(json.loads, lines)],
    )


def assert_same(found: Found, wanted: Found) -> None:
    assert found.evaluations == wanted.evaluations
    assert found.texts == wanted.texts
    for row, expected in zip(found.metrics, wanted.metrics, strict=True):
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, str):
                assert row[key] == value
            else:
                assert row[key] == pytest.approx(value, rel=1e-5, abs=1e-5), (row["step"], key)


def run_on(sizes: tuple[int, int, int], folder: Path) -> tuple[Found, list[np.ndarray], Any]:
    """The run on a mesh of the first devices; with each step's ids, and what was learned."""
    (folder / "two.py").write_text(CONFIG)
    flags = [
        f"--config.mesh.{a}={n}" for a, n in zip(("data", "fsdp", "tensor"), sizes, strict=True)
    ]
    if sizes[0] == 2:  # as two slices
        flags.append("--config.mesh.slices=2")
    settings = settings_of([f"--config={folder / 'two.py'}", *flags])
    ids: list[np.ndarray] = []
    graded = episodes.Episodes.graded

    def noted(self, dispatched, began):
        ids.append(jax.device_get(dispatched.sampled.tokens))
        return graded(self, dispatched, began)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes.Episodes, "graded", noted)
        made = functools.partial(sharding.make_mesh, devices=jax.devices()[: np.prod(sizes)])
        patch.setattr(sharding, "make_mesh", made)
        assert loop.train(settings, str(folder / "run")) == loop.DONE
        run = Run.start(settings, folder / "run", fakes.NO_LOG, None)  # type: ignore[arg-type]
        shapes = run.experiment.state_shapes(settings.stages["stage2"])
        with run.checkpoints.of_stage("stage2") as saved:
            state, _ = saved.state(2, shapes)
    return found_in(folder / "run"), ids, jax.device_get((state.params, state.opt_state))


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory, quick_compile):
    return run_on((1, 1, 1), tmp_path_factory.mktemp("one"))


def splits() -> list[tuple[int, int, int]]:
    """Every data x fsdp x tensor of 2, 4 and 8 devices that divides the model's four heads."""
    return [
        (data, fsdp, tensor)
        for data in (1, 2, 4, 8)
        for fsdp in (1, 2, 4, 8)
        for tensor in (1, 2, 4)
        if 1 < data * fsdp * tensor <= 8
    ]


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(sizes, marks=() if sizes == (2, 2, 2) else pytest.mark.slow)
        for sizes in splits()
    ],
)
def test_a_split_run_draws_the_same_ids_and_learns_the_same(on_one_device, tmp_path, sizes):
    (found, ids, learned), (wanted, wanted_ids, wanted_learned) = (
        run_on(sizes, tmp_path),
        on_one_device,
    )
    for ids_BT, wanted_BT in zip(ids, wanted_ids, strict=True):
        np.testing.assert_array_equal(ids_BT, wanted_BT)
    assert_same(found, wanted)
    # Adam's moments are sums of gradients.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, learned, wanted_learned)


@pytest.mark.parametrize(
    ("where", "more"),
    [
        pytest.param("rollout", (), marks=pytest.mark.slow),
        pytest.param("update", ("--config.mesh.fsdp=2",), marks=pytest.mark.slow),
        pytest.param(
            "rollout", ("--config.mesh.data=1", "--config.mesh.tensor=4"), marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_stop_at_one_step_and_end_as_one_device_does(
    on_one_device, tmp_path, where, more
):
    stopped = in_two_processes(tmp_path, *more, SIGTERM_IN=where)
    assert stopped.returncode == 75, stopped.stdout + stopped.stderr
    run = tmp_path / "run"
    assert saved_params.latest_step(run / "checkpoints" / "stage1") == 3
    assert [row["step"] for row in metrics_of(run)] == [1, 2, 3]
    finished = in_two_processes(tmp_path, *more)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "resumes at stage1, step 3" in finished.stdout
    assert_same(found_in(run), on_one_device[0])
