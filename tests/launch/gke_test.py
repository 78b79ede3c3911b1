"""launch/gke.sh against a kubectl that answers by list, and the manifest as Kubernetes reads it."""

import json
import signal
from pathlib import Path

import pytest
import yaml

from tests.launch.fakes import Tools

JOB = ("--name=math", "--image=registry/score_jax:1", "--claim=runs")
SLICE = ("--accelerator=tpu-v5-lite-podslice", "--topology=4x4")
RUN = ("--config=configs/quickstart.py", "--workdir=/mnt/score_jax/runs/math")
STATE = "{.status.terminalState} {.status.restarts}"
PHASE = "status.phase"


@pytest.fixture
def tools(tmp_path) -> Tools:
    return cluster(tmp_path)


def cluster(folder: Path, *, ended: str = "", refuses: str = "") -> Tools:
    """One that takes manifests, or refuses them with this message.

    ended: the terminal state of the JobSet of this name; empty if it runs, or is not there.
    """
    made = Tools(folder)
    made.answer("kubectl", "--ignore-not-found", out=ended)
    made.answer("kubectl", "apply", stdin="manifest.yaml", err=refuses, status=bool(refuses))
    return made


def verbs(tools: Tools) -> list[str]:
    calls = tools.calls("kubectl")
    assert all("--namespace=default" in call for call in calls)
    return [call[0] for call in calls if call[0] != "get"]


def manifest(tools: Tools) -> dict:
    return yaml.safe_load((tools.folder / "manifest.yaml").read_text())


def slice_of(tools: Tools) -> dict:
    return manifest(tools)["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_a_run_is_applied_shown_and_done(tools):
    tools.answer("kubectl", STATE, out=" ")
    tools.answer("kubectl", STATE, out=" ")
    tools.answer("kubectl", STATE, out="Completed ")
    tools.answer("kubectl", PHASE, out="Pending Pending")
    tools.answer("kubectl", PHASE, out="Running Running")
    tools.answer("kubectl", "logs", out="[pod/math-slice-0-0] step 1")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 0, done.stderr
    assert verbs(tools) == ["apply", "logs"]
    assert "launch/gke.sh: line" not in done.stderr  # no message of bash's own
    assert "step 1" in done.stdout and "Hosts: Pending Pending" in done.stderr


def test_bad_input_ends_with_2_and_its_message(tools):
    tools.answer("kubectl", STATE, out="Failed ")
    tools.answer("kubectl", "exitCode", out="2 2 143 2")
    tools.answer("kubectl", "logs", out="score_jax: unknown setting")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 2 and "score_jax: unknown setting" in done.stderr


def test_any_other_failure_ends_with_1(tools):
    tools.answer("kubectl", STATE, out="Failed 20")
    tools.answer("kubectl", "exitCode", out="75 75 12")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 1 and "75 75 12" in done.stderr


def test_restarts_of_the_cluster_are_told(tools):
    tools.answer("kubectl", STATE, out=" ")
    tools.answer("kubectl", STATE, out=" 1")
    tools.answer("kubectl", STATE, out="Completed 1")
    tools.answer("kubectl", PHASE, out="Running")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 0 and done.stderr.count("Restarted, 1 of 20") == 1


def test_one_that_has_ended_makes_room_and_one_that_runs_does_not(tmp_path):
    for ended, expected in (("Failed", ["delete", "apply"]), ("", ["apply"])):
        folder = tmp_path / (ended or "runs")
        folder.mkdir()
        tools = cluster(folder, ended=ended)
        tools.answer("kubectl", STATE, out="Completed ")
        assert tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN).returncode == 0
        assert verbs(tools) == expected


def test_a_cluster_that_refuses_is_told(tmp_path):
    tools = cluster(tmp_path, refuses="field is immutable\n")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 1
    assert "immutable" in done.stderr and "kubectl delete jobset math" in done.stderr


def test_a_cluster_that_is_out_of_reach_leaves_the_run(tools):
    tools.answer("kubectl", STATE, err="no route to host\n", status=1)
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    assert done.returncode == 1 and "math continues. The same command" in done.stderr


def test_ctrl_c_ends_the_showing_and_leaves_the_run(tools):
    tools.answer("kubectl", STATE, out=" ")
    tools.answer("kubectl", PHASE, out="Running")
    logs = tools.answer("kubectl", "logs", until="told")
    started = tools.start("launch/gke.sh", *JOB, *SLICE, "--", *RUN)
    tools.wait_for(logs)
    started.send_signal(signal.SIGINT)
    (tools.folder / "told").touch()
    done = tools.finish(started)
    assert done.returncode == 130 and "math continues" in done.stderr
    assert "delete" not in verbs(tools)


@pytest.mark.parametrize(
    ("accelerator", "topology", "more", "hosts", "chips"),
    [
        ("tpu-v5-lite-podslice", "4x4", (), 4, 4),
        ("tpu-v5-lite-podslice", "2x4", (), 1, 8),
        ("tpu-v5-lite-podslice", "2x4", ("--chips=4",), 2, 4),
        ("tpu-v6e-slice", "1x1", (), 1, 1),
        ("tpu-v5p-slice", "2x2x4", (), 4, 4),
        ("tpu-v6e-slice", "16x16", (), 64, 4),
    ],
)
def test_every_host_of_the_slice_has_its_pod(tools, accelerator, topology, more, hosts, chips):
    tools.answer("kubectl", STATE, out="Completed ")
    where = (f"--accelerator={accelerator}", f"--topology={topology}")
    assert tools.run("launch/gke.sh", *JOB, *where, *more, "--", *RUN).returncode == 0
    job = slice_of(tools)
    pod = job["template"]["spec"]
    assert job["completions"] == job["parallelism"] == hosts
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }


def test_only_status_2_is_final_and_restarts_are_bounded(tools):
    tools.answer("kubectl", STATE, out="Completed ")
    tools.run("launch/gke.sh", *JOB, *SLICE, "--restarts=7", "--", *RUN)
    policy = manifest(tools)["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    (rule,) = slice_of(tools)["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    pod = slice_of(tools)["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]


def test_arguments_reach_the_program_word_by_word(tools):
    words = [*RUN, 'say "it\'s"', "a\\b", "two\nlines", "tab\there", "- x: #y", "(a|b)$", "$(HOME)"]
    tools.answer("kubectl", STATE, out="Completed ")
    done = tools.run("launch/gke.sh", *JOB, *SLICE, "--", *words)
    assert done.returncode == 0, done.stderr
    given = slice_of(tools)["template"]["spec"]["containers"][0]["args"]
    assert [word.replace("$$", "$") for word in given] == words
    assert given[-1] == "$$(HOME)", json.dumps(given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*JOB[1:], *SLICE), "--name="),
        (("--name=Math_1", *JOB[1:], *SLICE), "lower-case letters"),
        ((JOB[0], JOB[2], *SLICE), "--image=IMAGE is missing"),
        ((*JOB[:2], *SLICE), "--claim=CLAIM is missing"),
        ((*JOB, SLICE[1]), "gke-tpu-accelerator"),
        ((*JOB, SLICE[0], "--topology=16"), "gke-tpu-topology"),
        ((*JOB, *SLICE, "--chips=3"), "the 16 chips"),
        ((*JOB, *SLICE, "--grace=x"), "whole numbers"),
    ],
)
def test_what_cannot_work_is_refused(tools, options, said):
    done = tools.run("launch/gke.sh", *options, "--", *RUN)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not tools.calls("kubectl")
