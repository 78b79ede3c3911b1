"""launch/colab.ipynb, run top to bottom on the CPU with a few steps of everything.

Here in the checkout, where the package is installed; and, slow, on a machine with nothing: from an
empty folder, in a fresh environment, which needs git and the package index."""

import ast
import json
import os
import shlex
import subprocess
import venv
from pathlib import Path

import nbclient
import nbformat
import pytest

from score_jax.config import command_line
from tests.docs_test import SMALL

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "launch" / "colab.ipynb"
LAPTOP_SMALL = (  # of the laptop's recipe, which has real weights
    "--config.stages.base.steps=1",
    "--config.stages.base.documents_per_step=2",
    "--config.stages.stage1.steps=1",
    "--config.stages.stage2.steps=1",
    "--config.rollout.problems_per_step=2",
    "--config.rollout.samples_per_problem=2",
    "--config.rollout.turn_rows=4",
    "--config.evaluation.problems=4",
    "--config.evaluation.batch=4",
)


@pytest.fixture(scope="module")
def stored() -> nbformat.NotebookNode:
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(stored, tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook with what its cells gave; a cell that fails fails the tests."""
    run = tmp_path_factory.mktemp("notebook") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORE_JAX_WORKDIR", str(run))
        patch.setenv("SCORE_JAX_SETTINGS", " ".join(SMALL))
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of compiles: each program runs once
        patch.setenv("IPYTHONDIR", str(run.parent / "ipython"))
        notebook = nbformat.from_dict(stored)
        folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
        nbclient.NotebookClient(notebook, timeout=300, resources=folder).execute()
    return notebook


def given(notebook: nbformat.NotebookNode, code: str) -> str:
    """Everything that the cell with that code printed or displayed, as one text."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and code in c.source]
    texts = []
    for output in cell.outputs:
        texts += [output.text] if output.output_type == "stream" else output.data.values()
    return "\n".join(texts)


def test_no_outputs_are_stored_and_nothing_of_a_machine(stored):
    nbformat.validate(stored)
    for cell in stored.cells:
        assert cell.cell_type == "markdown" or (not cell.outputs and cell.execution_count is None)
        assert all(len(line) <= 110 for line in cell.source.splitlines())
    assert set(stored.metadata) == {"kernelspec", "language_info"}


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_promises(executed):
    assert given(executed, "def score_jax").startswith("score-jax ")
    trained = given(executed, "SCORE_JAX_SETTINGS")
    assert "stage2" in trained and "The run page: " in trained and "Acc@t2" in trained
    plots = next(c for c in executed.cells if "def show_plots" in c.source)
    assert [set(output.data) >= {"image/png"} for output in plots.outputs] == [True, True]
    transcripts = given(executed, "wrong, then right")
    assert (
        transcripts.count("<tr>") == 9
        and "<th style='text-align:left'>attempt 2</th>" in transcripts
    )
    assert "&lt;script type=&quot;application/json&quot; id=&quot;data&quot;&gt;" in given(
        executed, "srcdoc"
    )
    assert "Attempt 2" in given(executed, "--mode=try")
    planned = given(executed, "TRAIN_LAPTOP")
    assert "It fits t4, by arithmetic." in planned and "The run page" not in planned


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_installs_from_an_empty_folder_on_a_machine_with_nothing(stored, tmp_path, monkeypatch):
    fresh, empty = tmp_path / "fresh", tmp_path / "empty"
    empty.mkdir()
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS", "JAX_PLATFORMS", "SCORE_JAX_WORKDIR"):
        monkeypatch.delenv(name, raising=False)
    venv.create(fresh, with_pip=True)
    python = str(fresh / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "ipykernel"], check=True)
    kernel = tmp_path / "jupyter" / "kernels" / "fresh" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "fresh", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("SCORE_JAX_REPOSITORY", str(ROOT))
    monkeypatch.setenv("SCORE_JAX_SETTINGS", " ".join(SMALL))
    monkeypatch.setenv("SCORE_JAX_LAPTOP_SETTINGS", " ".join(LAPTOP_SMALL))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    notebook = nbformat.from_dict(stored)
    nbclient.NotebookClient(
        notebook, timeout=3000, kernel_name="fresh", resources={"metadata": {"path": str(empty)}}
    ).execute()
    assert [path.name for path in empty.iterdir()] == ["score_jax_repository"]
    assert "stage2" in given(notebook, "SCORE_JAX_SETTINGS")
    laptop = given(notebook, "TRAIN_LAPTOP")
    assert "The run page: " in laptop and "wrong, then right: " in laptop
    assert "&lt;script type=&quot;application/json&quot; id=&quot;data&quot;&gt;" in laptop
    assert (empty / "score_jax_repository/runs/laptop/report/index.html").exists()


@pytest.mark.slow
def test_the_command_for_a_published_model_is_one_that_runs(executed, monkeypatch):
    monkeypatch.chdir(ROOT)
    for config in ("gsm8k_smollm2_135m", "gsm8k_gemma3_270m"):
        words = shlex.split(given(executed, "TRAIN = False"))
        assert words[:3] == ["python", "-m", "score_jax.main"]
        assert words[4].startswith("--workdir=")
        settings = command_line.settings_of([f"--config=configs/{config}.py", *words[5:]])
        assert settings.problems.name == "gsm8k" and settings.evaluation.every == 50


def test_code_is_plain_python(stored):
    for cell in stored.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
