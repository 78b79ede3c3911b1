"""launch/slurm.sbatch as a job would run it, with an srun and a scontrol that answer by list."""

import shutil
import signal

import pytest

from tests.launch.fakes import ROOT, Tools

RUN = ("--config=configs/quickstart.py", "--workdir=runs/math", "two  words")


@pytest.fixture
def tools(tmp_path) -> Tools:
    return Tools(tmp_path)


def shown(state: str) -> str:
    return f"JobId=17 JobName=score_jax\n   JobState={state} Reason=None\n" + 100_000 * "x"


@pytest.fixture
def job(tmp_path) -> dict[str, str]:
    """The environment of a job of two nodes; where it was submitted, everything is installed."""
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "launch", root / "launch")
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\necho 3.12\n")
    python.chmod(0o755)
    for name in ("pyproject.toml", "requirements.txt"):
        (root / name).touch()
    (root / ".venv" / "installed.cuda,hub").write_text("4294967295 0\n")  # cksum of nothing
    # A copy elsewhere, as SLURM makes one.
    shutil.copy(ROOT / "launch" / "slurm.sbatch", tmp_path / "slurm_script")
    return {
        "SLURM_SUBMIT_DIR": str(root),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_NTASKS_PER_NODE": "8",
    }


def requeued(tools: Tools) -> bool:
    calls = tools.calls("scontrol")
    assert all(call == ["requeue", "17"] for call in calls if call[0] == "requeue")
    return any(call[0] == "requeue" for call in calls)


def run(tools: Tools, job: dict[str, str], *arguments: str, **more: str):
    return tools.run(str(tools.folder / "slurm_script"), *(arguments or RUN), **{**job, **more})


@pytest.mark.parametrize(
    ("status", "again"),
    [(0, False), (2, False), (74, True), (75, True), (76, True), (134, True), (1, False)],
)
def test_what_can_go_on_goes_back_into_the_queue_and_nothing_else(tools, job, status, again):
    tools.answer("srun", "", status=status)
    tools.answer("scontrol", "show", out=shown("RUNNING"))
    done = run(tools, job, SLURM_CPUS_PER_TASK="6")
    assert done.returncode == status, done.stderr
    assert requeued(tools) == again
    (call,) = tools.calls("srun")
    python = f"{job['SLURM_SUBMIT_DIR']}/.venv/bin/python"
    assert call[-len(RUN) - 4 :] == [python, "-u", "-m", "score_jax.main", *RUN]
    assert {"--kill-on-bad-exit=0", "--cpus-per-task=6"} <= set(call)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_the_processes_once_and_the_job_waits_for_them(tools, job, number):
    srun = tools.answer("srun", "", until="signal", status=75)
    tools.answer("scontrol", "show", out=shown("RUNNING"))
    started = tools.start(str(tools.folder / "slurm_script"), *RUN, **job)
    tools.wait_for(srun)
    started.send_signal(number)
    done = tools.finish(started)
    assert done.returncode == 75 and requeued(tools), done.stderr
    assert (tools.folder / "heard").read_text() == str(int(signal.SIGUSR1))


def test_a_cancelled_job_stays_cancelled(tools, job):
    tools.answer("srun", "", status=75)
    tools.answer("scontrol", "show", out=shown("CANCELLED"))
    done = run(tools, job)
    assert done.returncode == 75 and not requeued(tools)


def test_requeues_are_bounded(tools, job):
    tools.answer("srun", "", status=75)
    tools.answer("scontrol", "show", out=shown("RUNNING"))
    assert run(tools, job, SLURM_RESTART_COUNT="3", RESTARTS="3").returncode == 75
    assert not requeued(tools)


def test_a_job_that_slurm_requeued_itself_ends_as_usual(tools, job):
    tools.answer("srun", "", status=75)
    tools.answer("scontrol", "show", out=shown("PREEMPTED"))
    tools.answer("scontrol", "requeue", err="Job is already pending\n", status=1)
    done = run(tools, job)
    assert done.returncode == 75 and "already pending" in done.stderr


def test_several_tasks_need_one_gpu_each(tools, job):
    tools.answer("srun", "")
    done = run(tools, job, SLURM_NTASKS_PER_NODE="1")
    assert done.returncode == 2 and "--ntasks-per-node=8" in done.stderr
    assert not tools.calls("srun")
    # One process on one node has all its GPUs.
    alone = {"SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "1"}
    assert run(tools, job, **alone).returncode == 0


def test_it_is_submitted_from_the_root_of_the_repository(tools, job, tmp_path):
    done = run(tools, job, SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 2 and "Submit from the root" in done.stderr


def test_outside_of_a_job_it_says_how_to_start(tools):
    done = tools.run("launch/slurm.sbatch", *RUN)
    assert done.returncode and "submit this file with sbatch" in done.stderr
