"""What is carried away from a lent machine: an archive that a run resumes from."""

import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import loop
from score_jax.run import Run
from tests import fakes
from tests.launch.fakes import ROOT
from tests.loop_test import metrics_of, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")

# Stands for the training, which was stopped, and for the export.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"$(dirname "$0")/called"
[[ "$*" == *--mode=export* ]] || exit 75
"""


def params_of(folder: Path, settings):
    run = Run.start(settings, folder, fakes.NO_LOG, None)  # type: ignore[arg-type]
    return jax.device_get(run.checkpoints.params("stage1"))


@pytest.mark.slow
def test_a_run_goes_on_from_the_archive_bit_for_bit(tmp_path):
    settings = tiny_settings(recipe=("stage1",))
    assert loop.train(settings, str(tmp_path / "whole")) == loop.DONE
    there = tmp_path / "there"
    saved = there / "checkpoints" / "stage1" / "2"
    assert loop.train(settings, str(there), stop=saved.exists) == loop.STOPPED
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", ROOT / "launch/one_gpu.sh", out, "--config=c.py", f"--workdir={there}", "--seed"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75, done.stderr
    asked = f"-m score_jax.main --config=c.py --workdir={there} --seed"
    export = f"{asked} --mode=export --export_adapters --export_dir={out}/adapters"
    assert (tmp_path / "called").read_text().splitlines() == [asked, export]

    here = tmp_path / "here"
    with tarfile.open(out / "state.tar.gz") as archive:
        names = {name.removeprefix("./").partition("/")[0] for name in archive.getnames()}
        archive.extractall(here, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    assert names.isdisjoint({"compile_cache", "tensorboard", "report"})
    assert loop.train(settings, str(here)) == loop.DONE
    assert metrics_of(here) == metrics_of(tmp_path / "whole")
    both = [params_of(folder, settings) for folder in (here, tmp_path / "whole")]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_the_folder_to_write_to_is_asked_for(tmp_path):
    command = ["bash", ROOT / "launch/one_gpu.sh", "--config=c.py", "--workdir=w"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Name the folder to write to first" in done.stderr
