"""Several processes: how they find each other, whose rows are whose, and whole runs in two."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import hosts, sharding, train
from score_jax.commandline import settings_of
from score_jax.learner import checkpoint
from score_jax.problem import InputError
from score_jax.structs import Episode
from tests.train_test import metrics_of

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize(
    ("flags", "environment", "found"),
    [
        (("", 0, -1), {}, None),
        (("a:1", 2, 0), {}, ("a:1", 2, 0)),
        (
            ("", 0, -1),
            {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            ("b:2", 4, 3),
        ),
        (("", 0, 1), {"JAX_COORDINATOR_ADDRESS": "b:2", "JAX_NUM_PROCESSES": "2"}, ("b:2", 2, 1)),
    ],
)
def test_flags_win_over_the_environment(flags, environment, found):
    assert hosts.addresses(*flags, environment) == found


@pytest.mark.parametrize("flags", [("a:1", 2, -1), ("a:1", 0, 1), ("", 2, 0), ("a:1", 2, 2)])
def test_a_part_of_the_addresses_or_a_number_too_large_is_refused(flags):
    with pytest.raises(InputError, match=r"told by three values.*--process=0 to N-1"):
        hosts.addresses(*flags, {})


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({"JAX_PLATFORMS": "cpu"}, False),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_NTASKS": "2", "JAX_PLATFORMS": "cpu"}, False),  # sbatch without srun
    ],
)
def test_slurm_tasks_are_processes_of_one_run(environment, several):
    assert hosts.on_a_cluster(environment) == several


def test_every_row_belongs_to_the_first_process_that_holds_it():
    class Device:
        def __init__(self, process: int):
            self.process_index = process

    class Rows:
        """Two processes of two devices; rows are split in two, and each half lies on two."""

        def __init__(self, order):
            self.order = order

        def devices_indices_map(self, shape):
            halves = (slice(0, shape[0] // 2), slice(shape[0] // 2, None))
            return {Device(p): (halves[half],) for p, half in self.order}

    apart = Rows([(0, 0), (0, 0), (1, 1), (1, 1)])
    np.testing.assert_array_equal(hosts.owners(apart, (4, 3)), [0, 0, 1, 1])
    across = Rows([(0, 0), (1, 0), (0, 1), (1, 1)])  # split over `tensor` between processes
    np.testing.assert_array_equal(hosts.owners(across, (4, 3)), [0, 0, 0, 0])


def test_one_process_hears_itself_and_owns_all_rows():
    rows = sharding.rows(sharding.make_mesh(4, 2, 1))
    arrays = [np.arange(16).reshape(8, 2) + i for i in range(3)]
    lengths, cut = np.arange(8), np.zeros((8, 2), bool)
    batch = jax.device_put(Episode(*arrays, lengths, cut), rows)
    own, row_N = hosts.own_rows(batch)
    jax.tree.map(np.testing.assert_array_equal, own, Episode(*arrays, lengths, cut))
    assert row_N.tolist() == list(range(8))
    assert hosts.in_order(row_N, "abcdefgh") == list("abcdefgh")
    assert hosts.exchange((1, "x")) == [(1, "x")]
    assert hosts.lead_says(lambda: {"a": 1}) == {"a": 1}
    assert hosts.agree(lambda: True)() and not hosts.agree(lambda: False)()


# The launcher, with a stand-in for Python.


STAND_IN = """#!/usr/bin/env bash
[[ "$1" == -c ]] && { echo 4321; exit; }  # asked for a free port
trap 'exit 75' TERM
echo "ready: $*"
[[ "$*" == *--fail* && "$*" == *--process=1* ]] && exit 3
[[ "$*" == *--fail* ]] && exit 75
while :; do sleep 0.02; done
"""


def launcher(folder: Path) -> list[str]:
    (folder / "launch").mkdir()
    for name in ("setup.sh", "local_processes.sh"):
        (folder / "launch" / name).write_text((ROOT / "launch" / name).read_text())
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return ["bash", str(folder / "launch" / "local_processes.sh")]


def test_a_dry_run_prints_the_commands(tmp_path):
    command = [*launcher(tmp_path), "2", "--dry-run", "--config=c.py", "--workdir=my run"]
    done = subprocess.run(command, capture_output=True, text=True)
    start = f"{tmp_path}/.venv/bin/python -m score_jax.main --coordinator=127.0.0.1:PORT"
    assert done.stdout.splitlines() == [
        f"{start} --processes=2 --process={i} --config=c.py --workdir=my\\ run" for i in (0, 1)
    ]
    wrong = subprocess.run(command[:2], capture_output=True, text=True)
    assert wrong.returncode == 1 and "How many processes?" in wrong.stderr


def test_the_launcher_passes_signals_on_and_tells_the_worst_status(tmp_path):
    command = launcher(tmp_path)
    running = subprocess.Popen([*command, "3"], stdout=subprocess.PIPE, text=True)
    assert running.stdout
    ready = sorted(running.stdout.readline() for _ in range(3))
    assert [line[:11] for line in ready] == ["[0] ready: ", "[1] ready: ", "[2] ready: "]
    assert all("--coordinator=127.0.0.1:4321 --processes=3" in line for line in ready)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=20) == 75
    assert subprocess.run([*command, "2", "--fail"], stdout=subprocess.DEVNULL).returncode == 3


# Whole runs


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
    from score_jax import sampler
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
        sampler.Sampler.dispatch = with_signal(sampler.Sampler.dispatch)
    else:
        step.train_step = with_signal(step.train_step)
"""


def in_two_processes(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """The run of CONFIG in `folder`, each process with two devices."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    config = folder / "configs" / "two.py"
    config.write_text(CONFIG)
    flags = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
    return subprocess.run(
        [
            *("bash", "launch/local_processes.sh", "2"),
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
        timeout=300,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, quick_compile) -> Path:
    """The same run in this process, which nothing stopped."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "two.py").write_text(CONFIG)
    settings = settings_of([f"--config={folder / 'two.py'}"])
    assert train.train(settings, str(folder / "run")) == train.DONE
    return folder / "run"


def texts_of(run: Path, name: str) -> list[list[str]]:
    lines = (run / "transcripts" / f"{name}.jsonl").read_text().splitlines()
    return [[attempt["text"] for attempt in json.loads(line)["attempts"]] for line in lines]


@pytest.mark.parametrize(
    ("where", "more"),
    [
        ("rollout", ()),
        pytest.param("update", ("--config.mesh.fsdp=2",), marks=pytest.mark.slow),
        pytest.param(
            "rollout", ("--config.mesh.data=1", "--config.mesh.tensor=4"), marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_stop_at_one_step_and_end_as_one_process_does(alone, tmp_path, where, more):
    stopped = in_two_processes(tmp_path, *more, SIGTERM_IN=where)
    assert stopped.returncode == 75, stopped.stdout + stopped.stderr
    run = tmp_path / "run"
    assert checkpoint.latest_step(run / "checkpoints" / "stage1") == 3
    assert [row["step"] for row in metrics_of(run)] == [1, 2, 3]
    finished = in_two_processes(tmp_path, *more)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "goes on at stage1, step 3" in finished.stdout

    theirs, ours = metrics_of(run), metrics_of(alone)
    assert [row.keys() for row in theirs] == [row.keys() for row in ours]
    for row, wanted in zip(theirs, ours, strict=True):
        numbers = {k: v for k, v in wanted.items() if isinstance(v, int | float)}
        found = {k: row[k] for k in numbers}
        assert found == pytest.approx(numbers, rel=1e-5, abs=1e-5)
    for name in ("base", "stage1", "stage2"):
        path = f"evaluations/{name}.json"
        assert (run / path).read_text() == (alone / path).read_text(), path
        assert texts_of(run, name) == texts_of(alone, name)
