"""launch/tpu_vm.sh against a gcloud that answers by list: what it does when, in which words."""

import os
import re
import shlex
import signal
import subprocess

import pytest

from tests.launch.fakes import ROOT, Tools

VM = ("--name=math", "--zone=us-central1-a", "--type=v5litepod-16", "--mount=gs://bucket", "--spot")
RUN = ("--config=configs/quickstart.py", "--workdir=/mnt/score_jax/runs/math")
QUOTA = (
    "ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit "
    "'TPUV5sPreemptible' has been exceeded. Limit: 0 in zone us-central1-a.\n"
)
FULL = (
    'ERROR: (gcloud.compute.tpus.tpu-vm.create) {"code": 8, "message": "There is no more capacity '
    'in the zone \\"us-central1-a\\""}\n'
)
GONE = "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found\n"


@pytest.fixture
def tools(tmp_path) -> Tools:
    made = Tools(tmp_path)
    made.answer("gcloud", "no such call")
    return made


def verbs(tools: Tools) -> list[str]:
    """What gcloud was asked: verbs, with ssh's told apart by what is done there."""
    told = []
    for call in tools.calls("gcloud"):
        assert call[:3] == ["compute", "tpus", "tpu-vm"] and "--zone=us-central1-a" in call
        command = next((word for word in call if word.startswith("--command=")), "")
        doing = [v for v in ("prepare", "run", "stop") if f"tpu_worker.sh {v}" in command]
        told += doing or [call[3]]
    return told


def test_a_vm_that_is_there_is_used_and_stays(tools):
    tools.answer("gcloud", "describe", out="READY")
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 0, done.stderr
    assert verbs(tools) == ["describe", "scp", "prepare", "run"]
    assert "is billed" in done.stderr and "tpu-vm delete math" in done.stderr
    assert not list(tools.folder.glob("*.tar.gz"))


def test_a_vm_that_is_not_there_is_made(tools):
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "describe", out="CREATING")
    tools.answer("gcloud", "describe", out="READY")
    done = tools.run(
        "launch/tpu_vm.sh", *VM, "--project=p", "--create=--network=mine", "--delete", "--", *RUN
    )
    assert done.returncode == 0, done.stderr
    expected = ["describe", "create", "describe", "describe", "scp", "prepare", "run", "delete"]
    assert verbs(tools) == expected
    create = tools.calls("gcloud")[1]
    assert {"--spot", "--accelerator-type=v5litepod-16", "--network=mine"} <= set(create)
    assert {"--version=v2-alpha-tpuv5-lite", "--project=p"} <= set(create)


def test_after_a_preemption_a_new_vm_goes_on_with_the_same_command(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "describe", out="PREEMPTED")
    tools.answer("gcloud", "describe", out="PREEMPTED")
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "tpu_worker.sh run", status=255)
    tools.answer("gcloud", "tpu_worker.sh run", status=0)
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 0, done.stderr
    assert verbs(tools) == [
        *("describe", "scp", "prepare", "run"),
        *("describe", "describe", "delete", "describe", "create", "describe"),
        *("scp", "prepare", "run"),
    ]
    first, second = (call for call in tools.calls("gcloud") if "tpu_worker.sh run" in str(call))
    told = [shlex.split(next(w for w in call if "--command" in w)) for call in (first, second)]
    assert told[0][5:] == told[1][5:] == list(RUN)
    assert told[0][4] != told[1][4]  # another start, not a repeated one


def test_a_preemption_while_installing_is_one_too(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "describe", out="TERMINATED")
    tools.answer("gcloud", "describe", out="TERMINATED")
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "tpu_worker.sh prepare", status=1)
    tools.answer("gcloud", "tpu_worker.sh prepare")
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 0, done.stderr
    assert verbs(tools).count("delete") == 1 and verbs(tools).count("run") == 1


def test_bad_input_stops_at_once(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "tpu_worker.sh run", status=2)
    done = tools.run("launch/tpu_vm.sh", *VM, "--delete", "--", *RUN)
    assert done.returncode == 2
    assert verbs(tools) == ["describe", "scp", "prepare", "run"]


def test_what_can_go_on_is_run_again_and_a_crash_is_not(tools):
    tools.answer("gcloud", "describe", out="READY")
    for status in (74, 75, 76, 134, 1):
        tools.answer("gcloud", "tpu_worker.sh run", status=status)
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 1
    assert verbs(tools).count("run") == 5
    assert "~/.score_jax/log" in done.stderr


def test_a_run_on_the_disk_of_a_lost_vm_is_not_begun_anew(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "describe", out="TERMINATED")
    tools.answer("gcloud", "tpu_worker.sh run", status=255)
    alone = ("--name=math", "--zone=us-central1-a", "--type=v5litepod-8", "--")
    run = (RUN[0], "--workdir=runs/math")
    for _ in range(2):  # nor by the same command again
        done = tools.run("launch/tpu_vm.sh", *alone, *run)
        assert done.returncode == 1 and "was on its disk" in done.stderr
    assert verbs(tools) == ["describe", "scp", "prepare", "run", "describe", "describe"]


def test_starts_are_bounded(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "tpu_worker.sh run", status=75)
    done = tools.run("launch/tpu_vm.sh", *VM, "--restarts=2", "--", *RUN)
    assert done.returncode == 1 and verbs(tools).count("run") == 3
    assert "Restarted 2 times (--restarts)" in done.stderr


def test_no_quota_is_told_and_not_waited_for(tools):
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "create", err=QUOTA, status=1)
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 2 and verbs(tools) == ["describe", "create"]
    assert QUOTA in done.stderr and "Ask for more" in done.stderr


def test_a_full_zone_is_waited_for(tools):
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "create", err=FULL, status=1)
    tools.answer("gcloud", "create")
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 0 and verbs(tools).count("create") == 2
    assert "no capacity" in done.stderr


def test_a_full_zone_is_not_waited_for_longer_than_asked(tools):
    tools.answer("gcloud", "describe", err=GONE, status=1)
    tools.answer("gcloud", "create", err=FULL, status=1)
    done = tools.run("launch/tpu_vm.sh", *VM, "--patience=0", "--", *RUN)
    assert done.returncode == 1 and verbs(tools) == ["describe", "create"]


def test_nothing_is_deleted_when_the_state_cannot_be_told(tools):
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "describe", err="ERROR: no network\n", status=1)
    tools.answer("gcloud", "tpu_worker.sh run", status=255)
    done = tools.run("launch/tpu_vm.sh", *VM, "--patience=0", "--", *RUN)
    assert done.returncode == 1 and "delete" not in verbs(tools)
    assert "no network" in done.stderr and "Nothing was deleted" in done.stderr


def test_a_network_that_fails_for_a_while_is_waited_for(tools):
    tools.answer("gcloud", "describe", out="READY")
    for _ in range(3):
        tools.answer("gcloud", "describe", err="ERROR: no network\n", status=1)
    tools.answer("gcloud", "describe", out="READY")
    tools.answer("gcloud", "tpu_worker.sh run", status=255)
    tools.answer("gcloud", "tpu_worker.sh run", status=0)
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 0 and verbs(tools).count("run") == 2, done.stderr


def test_a_vm_that_was_never_known_is_not_waited_for(tools):
    tools.answer("gcloud", "describe", err="ERROR: no such project\n", status=1)
    done = tools.run("launch/tpu_vm.sh", *VM, "--", *RUN)
    assert done.returncode == 1 and verbs(tools) == ["describe"]


def test_long_connections_that_break_are_no_starts(tools):
    tools.answer("gcloud", "describe", out="READY")
    for status in (255, 255, 255, 0):
        tools.answer("gcloud", "tpu_worker.sh run", status=status)
    given = ("launch/tpu_vm.sh", *VM, "--restarts=1", "--", *RUN)
    assert tools.run(*given, STEADY_SEC="0").returncode == 0
    assert verbs(tools).count("run") == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_makes_the_training_save_and_ends_the_launcher(tools, number):
    tools.answer("gcloud", "describe", out="READY")
    run = tools.answer("gcloud", "tpu_worker.sh run", until="told", status=75)
    tools.answer("gcloud", "tpu_worker.sh stop", touch="told")
    started = tools.start("launch/tpu_vm.sh", *VM, "--", *RUN)
    tools.wait_for(run)
    started.send_signal(number)
    done = tools.finish(started)
    assert done.returncode == 75, done.stderr
    assert verbs(tools) == ["describe", "scp", "prepare", "run", "stop"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_the_training_running(tools, number):
    tools.answer("gcloud", "describe", out="READY")
    run = tools.answer("gcloud", "tpu_worker.sh run", until="told")
    stop = tools.answer("gcloud", "tpu_worker.sh stop", until="told")
    started = tools.start("launch/tpu_vm.sh", *VM, "--", *RUN)
    for given in (run, stop):
        tools.wait_for(given)
        started.send_signal(number)
    assert started.wait(timeout=30) == 130
    (tools.folder / "told").touch()
    tools.finish(started)


def test_a_signal_before_the_training_starts_none(tools):
    tools.answer("gcloud", "describe", out="READY")
    prepare = tools.answer("gcloud", "tpu_worker.sh prepare", until="told", status=1)
    started = tools.start("launch/tpu_vm.sh", *VM, "--", *RUN)
    tools.wait_for(prepare)
    started.send_signal(signal.SIGTERM)
    (tools.folder / "told").touch()
    done = tools.finish(started)
    assert done.returncode == 75, done.stderr
    assert verbs(tools) == ["describe", "scp", "prepare"]


def test_arguments_reach_the_workers_word_by_word(tools):
    words = [*RUN, "--question=it's 3+4?", '--config.x="a  b"', "--empty=", "$HOME", "é"]
    tools.answer("gcloud", "describe", out="READY")
    tools.run("launch/tpu_vm.sh", *VM, "--", *words)
    (command,) = (w for call in tools.calls("gcloud") for w in call if "tpu_worker.sh run" in w)
    # gcloud splits a command at blanks, ssh joins it again, and a shell of the worker reads it.
    joined = " ".join(command.removeprefix("--command=").split(" "))
    revision, *_, identity = shlex.split(joined)[:5]
    assert re.fullmatch(r"SCORE_JAX_REVISION=[0-9a-f]{40}(-dirty)?", revision)
    assert re.fullmatch(r"\d+-0", identity)
    assert shlex.split(joined)[5:] == words


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        (VM[1:], RUN, "--name=NAME"),
        (VM[:1] + VM[2:], RUN, "--zone=ZONE"),
        (VM[:2], RUN, "--type=TYPE"),
        ((*VM[:2], "--type=v9-8"), RUN, "--version=VERSION"),
        (VM[:3], RUN, "several hosts"),
        ((*VM[:2], "--type=v5litepod-8", "--spot"), RUN, "loses its disk"),
        ((*VM[:3], "--mount=bucket"), RUN, "neither gs://BUCKET nor"),
        (VM, (RUN[0], "--workdir=runs/math"), "not on the storage"),
        (VM, (RUN[0], "--workdir=s3://bucket/math"), "of buckets only gs:// is known"),
        (VM, (RUN[0],), "--workdir=DIR is missing"),
        (VM, (RUN[1],), "--config=FILE is missing"),
        ((*VM[:2], "--type=v5litepod", "--version=x"), RUN, "is not an accelerator type"),
        ((*VM, "--sport"), RUN, "Unknown option --sport"),
        ((*VM, "--restarts=many"), RUN, "whole numbers"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_costs_money(tools, options, arguments, said):
    done = tools.run("launch/tpu_vm.sh", *options, "--", *arguments)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not tools.calls("gcloud")


def test_ctrl_c_at_a_terminal_reaches_the_launcher_and_not_gcloud(tools):
    tools.answer("gcloud", "describe", out="READY")
    run = tools.answer("gcloud", "tpu_worker.sh run", until="told", status=75)
    stop = tools.answer("gcloud", "tpu_worker.sh stop", touch="told")
    keyboard, terminal = os.openpty()
    command = ["bash", str(ROOT / "launch/tpu_vm.sh"), *VM, "--", *RUN]
    started = subprocess.Popen(
        command, env=tools.environment(), preexec_fn=lambda: os.login_tty(terminal)
    )
    tools.wait_for(run)
    os.write(keyboard, b"\x03")
    tools.wait_for(stop)
    assert started.wait(timeout=30) == 75
    os.close(terminal)
    os.close(keyboard)
