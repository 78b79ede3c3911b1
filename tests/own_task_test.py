"""docs/own_task.md: its files are written and its commands run, as they stand there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from score_jax.config import command_line
from tests import docs_test

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "own_task.md"
# What each command prints, in the page's order.
PRINTED = [
    "",
    "the loaded weights:",
    "stage2  10/10",
    "Attempt 2",
    "Its model card: runs/digits/export/README.md",
]
# The command of a full run is parsed below; vLLM is not a requirement of the tests.
FULL = "python -m score_jax.main --config=digits.py --workdir=runs/digits-full "
NOT_RUN = (FULL, "vllm serve ")


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder in which the page was followed."""
    folder = tmp_path_factory.mktemp("own")
    text = docs_test.text_of(PAGE)
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["make_problems.py", "my_rewards.py", "digits.py"]
    for name, content in files:
        (folder / name).write_text(content)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    commands = [c for c in docs_test.commands(PAGE) if not c.startswith(NOT_RUN)]
    for command, printed in zip(commands, PRINTED, strict=True):
        _, *arguments = shlex.split(command)
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stderr[-2000:]}"
        assert printed in ran.stdout, command
    return folder / "runs" / "digits"


@pytest.mark.slow
def test_every_command_of_the_page_runs(done):
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [
        (stage, step) for stage in ("stage1", "stage2") for step in range(1, 11)
    ]


@pytest.mark.slow
def test_the_command_of_a_full_run_names_settings_that_exist(done, monkeypatch):
    monkeypatch.chdir(done.parents[1])
    (command,) = [c for c in docs_test.commands(PAGE) if c.startswith(FULL)]
    arguments = [a for a in shlex.split(command)[3:] if not a.startswith("--workdir")]
    settings = command_line.settings_of(arguments)
    assert [settings.stages[name].steps for name in settings.recipe] == [300, 100]
    assert settings.evaluation.every == 50 and settings.problems.name == "jsonl"


@pytest.mark.slow
def test_rows_prompt_and_reward_reach_the_model(done):
    rows = (done / "transcripts" / "base.jsonl").read_text().splitlines()
    first = json.loads(rows[0])
    assert len(first["problem"]) == 2 and first["gold"] in (first["problem"], 2 * first["problem"])
    card = (done / "export" / "README.md").read_text()
    assert "whose rows have `times`, `digits` and `answer`" in card and "{{digits}}" in card
    assert "```text\n{times}:{problem}=\n```" in card and "```text\n?\n```" in card


@pytest.mark.slow
def test_the_reward_rises_as_the_page_says(done):
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    ends = [row["reward/attempt2"] for row in rows]
    said = re.search(r"from (0\.\d+) at step 1 to (0\.\d+) at step 20", docs_test.text_of(PAGE))
    assert ends[0] == pytest.approx(float(said[1]), abs=0.02)
    assert ends[-1] == pytest.approx(float(said[2]), abs=0.05) and ends[-1] > ends[0] + 0.02
