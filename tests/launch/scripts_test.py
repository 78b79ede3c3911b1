"""Scripts of launch/: shellcheck has nothing to say, and dry runs print what they printed before.

Golden files are in tests/launch/golden. When a launcher means to do something else now, write them
anew and look at the difference: UPDATE_GOLDEN=1 python -m pytest tests/launch/scripts_test.py
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.launch.fakes import ROOT, Tools

GOLDEN = Path(__file__).parent / "golden"
MATH = ("--config=configs/math_gemma2_2b.py", "--config.model.source=/mnt/score_jax/gemma 2")
MOUNTED = (*MATH, "--workdir=/mnt/score_jax/runs/math")
DRY_RUNS = {
    "tpu_vm": (
        "launch/tpu_vm.sh",
        *("--name=math", "--zone=us-central1-a", "--type=v5litepod-16", "--project=mine"),
        *("--spot", "--mount=gs://bucket", "--create=--network=lab", "--dry-run", "--", *MOUNTED),
    ),
    "tpu_vm_one_host": (
        "launch/tpu_vm.sh",
        *("--name=small", "--zone=us-east5-b", "--type=v6e-8", "--dry-run", "--"),
        *("--config=configs/quickstart.py", "--workdir=runs/quickstart"),
    ),
    "tpu_vm_bucket": (
        "launch/tpu_vm.sh",
        *("--name=math", "--zone=us-central1-a", "--type=v5litepod-16", "--spot", "--dry-run"),
        *("--", MATH[0], "--workdir=gs://bucket/runs/math"),
    ),
    "gke_bucket": (
        "launch/gke.sh",
        *("--name=math", "--image=registry/score_jax:1"),
        *("--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--dry-run"),
        *("--", MATH[0], "--workdir=gs://bucket/runs/math"),
    ),
    "gke": (
        "launch/gke.sh",
        *("--name=math", "--image=registry/score_jax:1", "--claim=runs", "--spot"),
        *("--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--dry-run", "--", *MOUNTED),
    ),
    "slurm": ("launch/slurm.sbatch", "--dry-run", *MATH, "--workdir=/scratch/runs/math"),
}


def test_shellcheck_has_nothing_to_say():
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent) or "shellcheck"
    scripts = [*sorted(ROOT.glob("launch/*.sh")), *ROOT.glob("launch/*.sbatch"), ROOT / ".ci/run"]
    command = [shellcheck, "--external-sources", *map(str, scripts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert len(scripts) > 8 and done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_manual_are_understood(tmp_path):
    tools = Tools(tmp_path)
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    lines = re.sub(r"\\\n\s*", " ", blocks).splitlines()
    launched = [
        shlex.split(line) for line in lines if re.search(r"launch/\w+\.(sh|sbatch) -", line)
    ]
    assert len(launched) == 4
    for words in launched:
        script = next(i for i, word in enumerate(words) if word.startswith("launch/"))
        more = [word for word in words[script + 1 :] if word != "--dry-run"]
        done = tools.run(words[script], "--dry-run", *more)
        assert done.returncode == 0 and not done.stderr, done.stderr


def test_what_is_installed_and_copied_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    files = [path for path in (ROOT / "launch").iterdir() if path.suffix != ".ipynb"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = re.findall(r"install_extras ([a-z,]+)$", text, re.MULTILINE)
    named += re.findall(r"'\.\[([a-z,]+)\]'", text)
    assert len(named) >= 3 and {e for names in named for e in names.split(",")} <= set(extras)
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / "launch" / "Dockerfile").read_text(), re.M)
    assert copied and all((ROOT / name).exists() for line in copied for name in line.split())


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_its_golden_file_and_runs_nothing(name, tmp_path):
    tools = Tools(tmp_path)
    for tool in ("gcloud", "kubectl", "srun", "scontrol", "git"):
        tools.answer(tool, "")
    done = tools.run(*DRY_RUNS[name], TMPDIR="/tmp")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not (tmp_path / "calls.jsonl").exists()
    printed = done.stdout.replace(str(ROOT), "ROOT")
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(printed)
    assert printed == path.read_text(), "see the head of this file"
