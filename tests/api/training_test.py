"""The Python interface on a tiny untrained model: what is typed, and what comes back."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

import score_jax as sj
from score_jax.rewards.workers import pool
from tests import fakes
from tests.model import weights_test

ROWS = [{"problem": f"{a}+{b}", "answer": str((a + b) % 10)} for a in range(10) for b in range(10)]
MODEL = {"tokenizer": "characters", "template": "plain"}


@pytest.fixture(autouse=True)
def _ended(quick_compile):
    yield
    pool.close()


@pytest.fixture(scope="module")
def task():
    def reward(problem, texts, gold):  # a closure
        return [float(gold in text) for text in texts]

    return sj.Task(
        ROWS, prompt="{problem}=", instruction="?{problem}=", reward=reward, attempt_tokens=4
    )


@pytest.fixture(scope="module")
def model():
    return sj.load("preset:quickstart", **MODEL)


def test_a_model_is_asked_with_samples_and_without(model, task):
    found = model.attempt(task.problems[:2], task=task, samples=2)
    assert [one.problem.id for one in found] == [task.problems[n].id for n in (0, 0, 1, 1)]
    for one in found:
        paid = [one.problem.gold in text for text in one.texts]
        cut = zip(paid, one.truncated, strict=True)
        assert one.rewards == [float(right and not truncated) for right, truncated in cut]
    assert str(found).count("attempt 2") == 4
    assert len(model.attempt(task.problems[:3], task=task)) == 3


def test_a_training_ends_with_a_table_and_resumes(model, task, tmp_path):
    steps = []

    def stop_at_first(row):
        steps.append(row)
        if len(steps) == 1:  # a second one would end the process
            os.kill(os.getpid(), signal.SIGINT)

    def run(on_step=steps.append):
        return sj.train(
            model,
            task,
            sj.score(stage1=2, stage2=1, learning_rate=1e-3),
            workdir=tmp_path / "run",
            seed=3,
            on_step=on_step,
            rollout={"problems_per_step": 8, "samples_per_problem": 2},
            evaluation={"problems": 8},
        )

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"SIGINT: .* is saved, and the same call resumes"):
        run(on_step=stop_at_first)
    assert len(steps) < 3 and signal.getsignal(signal.SIGINT) == before
    done = run()
    assert [(row["stage"], row["step"]) for row in steps] == [
        *[("stage1", 1), ("stage1", 2)],
        ("stage2", 1),
    ]
    assert done.metrics()[-1]["loss"] == steps[-1]["loss"]
    assert max(row["logp_gap"] for row in steps) < 1e-5
    assert abs(steps[0]["kl/attempt1"]) + abs(steps[0]["kl/attempt2"]) < 1e-5  # policy = reference
    assert list(done.summary()["stages"]) == ["base", "stage1", "stage2"]
    assert "stage2" in done.table()
    assert done.page().stat().st_size > 10_000
    said = json.loads((tmp_path / "run/config.json").read_text())
    assert said["settings"]["seed"] == 3
    assert said["sent"]["instruction"] == f"?{said['sent']['prompt']}"
    assert run().finished and len(steps) == 3  # nothing is trained again
    (again,) = done.model().attempt(task.problems[:1], task=task)
    assert len(again.texts) == 2
    assert done.evaluate()["n"] == 8


def test_problems_are_rows_files_problems_or_a_dataset(tmp_path):
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    texts = {"prompt": "{problem}=", "instruction": "?"}
    of_file = sj.Task(str(file), **texts)
    of_rows = sj.Task(ROWS, **texts)
    asked = [[one.asked for one in task.problems] for task in (of_file, of_rows)]
    assert asked[0] == asked[1] and len(asked[0]) > 80
    assert len(of_rows.problems) + len(of_rows.test_problems) == 100

    class Dataset:  # what a datasets.Dataset is to us: rows by iteration
        def __iter__(self):
            return iter(ROWS)

    assert [one.asked for one in sj.Task(Dataset(), **texts).problems] == asked[1]
    own = sj.Task(of_rows.problems[:5], test=of_rows.problems[5:7], **texts)
    assert [one.id for one in own.problems] == [one.id for one in of_rows.problems[:5]]
    assert len(own.test_problems) == 2


def test_a_task_and_a_model_print_what_was_given(task, model):
    assert repr(task) == (
        "Task(100 rows, prompt='{problem}=', instruction='?{problem}=', reward=reward)"
    )
    rows = sj.Task("rows.jsonl", test=ROWS[:2])
    assert repr(rows) == "Task('rows.jsonl', prompt='{problem}', test=2 rows)"
    assert repr(model) == "Model('preset:quickstart', tokenizer='characters', template='plain')"


def test_other_problems_in_the_folder_of_a_begun_run_are_refused(task, tmp_path):
    folder = tmp_path / "problems"
    task.write(folder)
    (tmp_path / "checkpoints/stage1/2").mkdir(parents=True)
    task.write(folder)
    other = sj.Task(ROWS[:50], prompt="{problem}=", instruction="?")
    with pytest.raises(sj.InputError, match="the task has others now"):
        other.write(folder)


def test_recipes_are_values_and_wrong_settings_are_refused_by_name(model, task):
    recipe = sj.score(stage1={"steps": 3, "kl_attempt1": 0.2}, stage2=4, bonus=5.0)
    assert list(recipe.stages) == ["stage1", "stage2"]
    first, second = recipe.stages.values()
    assert (first.kl_attempt1, first.bonus, first.reward_attempt1) == (0.2, 0.0, 0.0)
    assert (second.steps, second.bonus, second.reward_attempt1) == (4, 5.0, 1.0)
    assert sj.single_turn_rl(5).stages["single_turn_rl"].attempts == 1
    assert list(sj.recipe(warm=sj.multi_turn_rl(1).stages["multi_turn_rl"], then=2).stages) == [
        *["warm", "then"]
    ]
    for wrong, match in (
        (lambda: sj.score(1, 1, bonsu=2.0), "unknown setting .*bonsu.*'bonus'"),
        (lambda: sj.load("absent.gguf"), "absent.gguf"),
        (lambda: sj.Task(ROWS, prmopt="?"), "Task takes no 'prmopt'. Did you mean 'prompt'"),
        (lambda: sj.Task(ROWS, rewards_fn=len), "Task takes no 'rewards_fn'.*'reward"),
        (lambda: sj.Task([1, 2]).problems, "row 0 is 1, not an object with fields"),
        (lambda: sj.score(1.5, 1), "stage1.steps=1.5 must be of type int"),
        (lambda: sj.score(1, "ten"), "stage2.steps='ten' must be of type int"),
        (lambda: sj.load("preset:quickstart", lora={"alpha": 64.0}), "has no rank"),
        (lambda: sj.train(model, workdir="runs/x"), "needs a model, a task and a recipe"),
        (lambda: sj.train(model, task, recipe, workdir="gs://b/run"), "train takes local folders"),
        (lambda: model.attempt(task.problems[:1], task=task, rolout={}), "unknown setting .*rolo"),
    ):
        with pytest.raises(sj.InputError, match=match):
            wrong()


SCRIPT = """\
import score_jax as sj

def reward(problem, texts, gold):
    return [float(text.strip().endswith(gold)) for text in texts]

model = sj.load("SmolLM2-135M-Instruct.Q4_1.gguf")
task = sj.Task("sums.jsonl", prompt="{problem} =", instruction="Check it. {problem} =", reward=reward)
print(model.attempt(task.problems[:2], task=task, samples=2))
run = sj.train(model, task, sj.score(stage1=20, stage2=20), workdir="runs/sums")
print(run.table())
"""  # noqa: E501
TOKENS = [*map(chr, range(33, 127)), "Ġ", "Ċ", "!#", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)


def small_chat_model(path):
    """A GGUF of one narrow layer, with ChatML and a token for every character."""

    def described(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
        writer.add_token_merges(["! #"])
        writer.add_eos_token_id(len(TOKENS) - 1)
        writer.add_chat_template(CHAT)

    config = fakes.model(vocab_size=len(TOKENS), max_positions=512, tied=False)
    weights_test.write_gguf(path, config, fakes.params(config), more=described)


def as_program(folder: Path) -> str:
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def as_cells(folder: Path) -> str:
    cells = [nbformat.v4.new_code_cell(part) for part in SCRIPT.split("\n\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_what_is_no_problem_task_recipe_or_folder_is_refused_and_nothing_is_written(
    model, task, tmp_path
):
    recipe, workdir, problem = sj.score(1, 1), tmp_path / "run", task.problems[0]
    wrong = {
        "needs problems of a Task": [
            lambda: model.attempt("1+1=", task=task),
            lambda: model.attempt([], task=task),
            lambda: model.attempt(ROWS[:1], task=task),
            lambda: model.attempt([problem], task=ROWS),
        ],
        "both must be texts": [
            lambda: sj.Task(ROWS, instruction=None),
            lambda: sj.Task(ROWS, instruction=[5]),
            lambda: sj.Task(ROWS, prompt=None),
        ],
        "is no file, name of a set, or list": [
            lambda: sj.Task(None),
            lambda: sj.Task(ROWS, test=5),
        ],
        "row 1 is not a Problem": [lambda: sj.Task([problem, ROWS[0]]).problems],
        "row 0 is not a Problem": [lambda: sj.Task([ROWS[0], problem]).problems],
        "train needs a model, a task and a recipe": [
            lambda: sj.train(model, ROWS, recipe, workdir=workdir),
            lambda: sj.train(model, task, 5, workdir=workdir),
        ],
        "names no folder": [
            lambda: sj.train(model, task, recipe, workdir=None),
            lambda: sj.train(model, task, recipe, workdir=""),
            lambda: sj.train(model, task, recipe, workdir=5),
        ],
        "no user": [lambda: sj.train(model, task, recipe, workdir="~nosuchuser/x")],
        "unknown setting config.rollout.x": [
            lambda: sj.train(model, task, recipe, workdir=workdir, rollout={"x": 1})
        ],
    }
    for said, calls in wrong.items():
        for call in calls:
            with pytest.raises(sj.InputError, match=said):
                call()
    assert not workdir.exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [as_program, as_cells])
def test_the_script_of_the_first_page_runs_as_it_is_written(run, tmp_path, monkeypatch):
    small_chat_model(tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf")
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    said = run(tmp_path)
    assert said.count("attempt 2") >= 4 and "stage2" in said.rstrip().splitlines()[-1]
    folder = tmp_path / "runs" / "sums"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == 2 * [*range(1, 21)]
    assert abs(rows[0]["kl/attempt1"]) + abs(rows[0]["kl/attempt2"]) < 1e-5  # policy = reference
    assert max(row["logp_gap"] for row in rows) < 1e-4
    first = json.loads((folder / "transcripts" / "base.jsonl").read_text().splitlines()[0])
    sent = json.loads((folder / "config.json").read_text())["sent"]
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    assert sent["prompt"] == asked.format(f"{first['problem']} =")
    assert sent["instruction"] == "\n" + asked.format(f"Check it. {first['problem']} =")
