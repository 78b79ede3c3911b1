"""launch/tpu_vm.sh and tpu_worker.sh together: a folder of this machine is the home on the VM.

gcloud's stand-in copies into that folder and runs commands there as ssh would; archive, lock, log
and signals are real. Installing is not part of it.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.fakes import ROOT, Tools, wait_until

GCLOUD = """#!/usr/bin/env bash
cloud={cloud!r}
vm="$cloud/vm"
echo "$4" >>"$cloud/verbs"
case "$4" in
  describe) [[ -d "$vm" ]] && cat "$cloud/state" || {{ echo NOT_FOUND >&2; exit 1; }} ;;
  create) cp -r "$cloud/image" "$vm"; echo READY >"$cloud/state" ;;
  delete) rm -rf "$vm" ;;
  scp) cp "$5" "$vm/${{6#*:}}" ;;
  ssh)
    for word in "$@"; do
      [[ "$word" != --command=* ]] || command="${{word#--command=}}"
    done
    cd "$vm"
    HOME="$vm" HOSTNAME=t1v-n-0-w-0 setsid bash -c "$command" & connection=$!
    [[ "$command" != *" run "* ]] || echo "$connection" >"$cloud/connection"
    wait "$connection"
    status=$?
    ((status == 137)) && exit 255
    exit "$status"
    ;;
esac
"""
# In place of score_jax.main: counts its starts, ends with 75 when told to, else as `end` says.
PROGRAM = """#!/usr/bin/env bash
if [[ "$1" == -c ]]; then echo 3.12; exit; fi
trap 'echo saved; exit 75' TERM
printf '<%s>' "${{@:3}}"; echo
ls configs/quickstart.py >>{cloud!r}/starts
until [[ -s {cloud!r}/end ]]; do sleep 0.02; done
exit "$(<{cloud!r}/end)"
"""
VM = ("--name=math", "--zone=z", "--type=v5litepod-16", "--mount=gs://bucket", "--spot")
RUN = ("--config=configs/quickstart.py", "--workdir=/mnt/score_jax/runs", "it's  two")


@pytest.fixture
def cloud(tmp_path):
    """Where the VM is made from `image`, a home with everything installed and storage mounted."""
    if not shutil.which("flock"):
        pytest.skip("workers are Linux machines")
    if not (ROOT / ".git").exists():
        pytest.skip("the launcher copies what git knows, and this is no checkout")
    tools = Tools(tmp_path)
    python = tmp_path / "image" / "score_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PROGRAM.format(cloud=str(tmp_path)))
    names = ("pyproject.toml", "setup.py", "requirements.txt")
    wanted = b"".join((ROOT / name).read_bytes() for name in names)
    total = subprocess.run(["cksum"], input=wanted, capture_output=True, check=True).stdout
    (python.parents[1] / "installed.tpu,hub,gcs").write_bytes(total)
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.write_text(GCLOUD.format(cloud=str(tmp_path)))
    for program in (python, gcloud):
        program.chmod(0o755)
    tools.answer("mountpoint", "")
    yield tools
    (tmp_path / "end").write_text("0")


def start(tools: Tools) -> subprocess.Popen:
    mounted = tools.folder / "mnt"
    mounted.mkdir(exist_ok=True)
    return tools.start("launch/tpu_vm.sh", *VM, "--", *RUN, MOUNT_POINT=str(mounted))


def starts(tools: Tools) -> int:
    path: Path = tools.folder / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def connection(tools: Tools) -> int:
    """The process group of the newest ssh that trains; 0 while there is none."""
    path: Path = tools.folder / "connection"
    return int(path.read_text() or 0) if path.exists() else 0


def cut(tools: Tools) -> None:
    """Breaks the newest connection."""

    def killed() -> bool:
        group = connection(tools)
        if not group:  # signals to group 0 would reach the tests themselves
            return False
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself, and another follows
            return False
        return True

    wait_until(killed)


def test_a_run_outlives_connections_and_machines(cloud):
    started = start(cloud)
    wait_until(lambda: starts(cloud) == 1)
    wait_until(lambda: connection(cloud))
    first = connection(cloud)
    cut(cloud)
    # The machine is still there, so nothing is started: the log goes on.
    wait_until(lambda: connection(cloud) not in (0, first))
    assert starts(cloud) == 1
    # Now the machine goes away with all that ran on it. What is edited here is not for this run.
    packed = cloud.folder / "score_jax-math.tar.gz"
    when = packed.stat().st_mtime_ns
    (cloud.folder / "state").write_text("PREEMPTED")
    trainer = int((cloud.folder / "vm" / ".score_jax" / "trainer").read_text())
    cut(cloud)
    os.killpg(trainer, signal.SIGKILL)
    wait_until(lambda: starts(cloud) == 2)
    assert packed.stat().st_mtime_ns == when
    (cloud.folder / "end").write_text("0")
    done = cloud.finish(started)
    assert done.returncode == 0, done.stderr
    assert "[0] <--config=configs/quickstart.py>" in done.stdout and "<it's  two>" in done.stdout
    verbs = (cloud.folder / "verbs").read_text().split()
    assert verbs.count("create") == 2 and verbs.count("delete") == 1


def test_a_signal_to_the_launcher_saves_on_the_machine_and_the_same_command_goes_on(cloud):
    started = start(cloud)
    wait_until(lambda: starts(cloud) == 1)
    started.send_signal(signal.SIGINT)
    done = cloud.finish(started)
    assert done.returncode == 75, done.stderr
    assert "[0] saved" in done.stdout
    again = start(cloud)
    wait_until(lambda: starts(cloud) == 2)
    (cloud.folder / "end").write_text("0")
    assert cloud.finish(again).returncode == 0


def test_a_launcher_that_died_finds_its_training_again(cloud):
    started = start(cloud)
    wait_until(lambda: starts(cloud) == 1)
    os.killpg(started.pid, signal.SIGKILL)
    cut(cloud)
    started.communicate(timeout=30)
    code = cloud.folder / "vm" / "score_jax" / "configs" / "quickstart.py"
    code.write_text("of the training that is under way")
    again = start(cloud)
    line = again.stdout.readline()
    while line and "runs already" not in line:
        line = again.stdout.readline()
    (cloud.folder / "end").write_text("0")
    done = cloud.finish(again)
    assert done.returncode == 0 and starts(cloud) == 1, done.stderr
    assert line and code.read_text() == "of the training that is under way"
