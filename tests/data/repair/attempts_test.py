import json
import subprocess
import sys

import pytest

from score_jax import jsonfiles
from score_jax.data import pipeline, problems
from score_jax.data.repair import attempts as repair
from score_jax.data.sets import mbpp
from score_jax.problem import Grade, InputError
from score_jax.rewards import grader
from score_jax.text import prompts, templates, tokenizer
from tests.data.real import REAL, needs_real_data


def run(problems, programs):
    """A stand-in for the sandbox: our own mutants of published programs, in another process."""
    grades = []
    for problem, program in zip(problems, programs, strict=True):
        gold = json.loads(problem.gold)
        code = "\n".join([program, gold["setup"], *gold["tests"]])
        try:
            done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, timeout=5)
        except subprocess.TimeoutExpired:
            grades.append(Grade(0.0, "timeout"))
            continue
        right = done.returncode == 0
        grades.append(Grade(float(right), "passed" if right else "failed"))
    return grades


def tasks(count=8):
    return mbpp.examples(REAL / "mbpp" / "mbpp.jsonl", "test")[:count]


@needs_real_data
def test_mutated_programs_fail_and_their_references_pass():
    rows = list(repair.mutated(tasks(), 0, run))
    assert len(rows) >= 6
    references = {f"mbpp_repair/{row['task_id']}": row["code"] for row in tasks()}
    asked = [mbpp.problem(row) for row in tasks()]
    assert all(grade.reward for grade in run(asked, [row["code"] for row in tasks()]))
    for row in rows:
        assert row["made_by"] == "mutation" and row["seed"] == 0 and row["reason"] == "failed"
        assert row["first_attempt"] != references[row["id"]]
        assert "\r" not in row["first_attempt"]
        assert len(row["tests"]) == 3


@needs_real_data
def test_the_slip_depends_on_seed_and_task_alone():
    def made(chosen, seed):
        rows = repair.mutated(chosen, seed, lambda asked, _: [Grade(0.0, "failed")] * len(asked))
        return {row["id"]: row["first_attempt"] for row in rows}

    whole = made(tasks(), 0)
    assert made(tasks()[3:5], 0).items() <= whole.items()
    assert made(tasks(), 0) == whole != made(tasks(), 1)


@needs_real_data
def test_right_and_hanging_mutants_are_left_out():
    verdicts = [Grade(1.0, "passed"), Grade(0.0, "timeout"), Grade(0.0, "failed")]
    asked = []

    def grade(_, programs):
        asked.append(programs[0])
        return [verdicts[len(asked) - 1]]

    [row] = repair.mutated(tasks(1), 0, grade)
    assert len(asked) == len(set(asked)) == 3 and row["first_attempt"] == asked[2]
    assert not list(repair.mutated(tasks(1), 0, lambda *_: [Grade(1.0, "passed")]))


@pytest.fixture
def transcript(tmp_path):
    """A transcript of tasks: right, wrong, out of time, cut off, right without a reward."""
    gold = {"tests": ["assert f(1) == 2"], "setup": "", "prelude": ""}
    attempts = [
        {"text": "right", "reward": 1.0, "reason": "passed"},
        {"text": "def f(x):\n    return x", "reward": 0.0, "reason": "failed"},
        {"text": "slow", "reward": 0.0, "reason": "timeout"},
        {"text": "cut", "reward": 0.0, "reason": "truncated"},
        {"text": "right", "reward": 0.0, "solved": True, "reason": "long"},
    ]
    file = tmp_path / "base.jsonl"
    jsonfiles.write_lines(
        file,
        [
            {
                "id": f"mbpp/{n}",
                "problem": f"Write f. {n}",
                "gold": json.dumps(gold),
                "attempts": [attempt, {"text": "second", "reward": 0.0, "reason": "failed"}],
            }
            for n, attempt in enumerate(attempts, start=11)
        ],
    )
    return file


def test_wrong_first_attempts_of_a_model_become_a_problem_set(transcript, tmp_path, capsys):
    out = tmp_path / "repair.jsonl"
    given = ["written", str(transcript), "--model=tiny", "--seed=3", f"--out={out}"]
    repair.main(given)
    assert "1 wrong programs, made by model:tiny; 0 longer" in capsys.readouterr().out
    assert json.loads(out.read_text())["seed"] == 3
    [problem] = problems.load("mbpp_repair", str(out), "test")
    assert problem.id == "mbpp_repair/12" and problem.prompt == "Write f. 12"
    assert problem.first_attempt == "def f(x):\n    return x" and problem.grader == "program"
    assert json.loads(problem.gold)["tests"] == ["assert f(1) == 2"]
    assert problem.tags == {"made_by": "model:tiny"}


def test_command_line_says_what_is_wrong(transcript, tmp_path):
    def refused(message, *given):
        with pytest.raises(InputError, match=message):
            repair.main([*given, f"--out={tmp_path / 'x.jsonl'}"])

    ours = ("written", str(transcript), "--model=a")
    refused("--model=NAME is missing", *ours[:2])
    refused("cannot read", "written", str(tmp_path / "no"), "--model=a")
    refused(r"mbpp\.jsonl: no such file", "mutated", str(tmp_path))
    # The one wrong program has 22 characters, its task 11.
    refused("none of 1 wrong programs has at most --max_chars=32", *ours, "--max_chars=32")
    line = json.loads(transcript.read_text().splitlines()[1])
    jsonfiles.write_lines(transcript, [line | {"gold": "42"}])
    refused("line 1: the right answer is '42', not a list of tests", *ours)
    jsonfiles.write_lines(transcript, [line | {"attempts": []}])
    refused("line 1: has no graded attempts", *ours)
    assert not (tmp_path / "x.jsonl").exists()


@needs_real_data
def test_command_line_grades_mutants_as_training_does(tmp_path, monkeypatch):
    asked = []

    def program(text, gold):
        asked.append(json.loads(gold)["tests"])
        return Grade(0.0, "failed")

    monkeypatch.setitem(grader.GRADERS, "program", program)
    monkeypatch.setattr(grader, "grade", one_by_one)
    out = tmp_path / "repair.jsonl"
    given = ["mutated", str(REAL / "mbpp"), "--split=prompt", f"--out={out}"]
    repair.main(given)
    found = problems.load("mbpp_repair", str(out), "test")
    assert len(found) == len(asked) >= 9  # of ten, one has no slip to make


def one_by_one(problems, texts_BA, **_):
    """What grader.grade does with a grader of (text, gold)."""
    grades = [
        grader.GRADERS[problem.grader](text, problem.gold)
        for problem, [text] in zip(problems, texts_BA, strict=True)
    ]
    return tuple([[getattr(g, k)] for g in grades] for k in ("reward", "solved", "reason"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_attempt": " "}, "line 1: field 'first_attempt' is empty"),
        ({"tests": []}, "line 1: has no test"),
        ({"tests": "assert"}, "line 1: field 'tests' must be a list"),
        ({"made_by": 3}, "line 1: field 'made_by' must be a string"),
    ],
)
def test_a_bad_line_is_named(tmp_path, changes, message):
    good = {"id": "a", "problem": "p", "first_attempt": "w", "made_by": "m", "tests": ["assert f"]}
    file = tmp_path / "repair.jsonl"
    jsonfiles.write_lines(file, [good | {"setup": "", "prelude": ""} | changes])
    with pytest.raises(InputError, match=message):
        problems.load("mbpp_repair", str(file), "test")


def test_without_a_file_the_message_says_how_to_make_one():
    with pytest.raises(InputError, match=r"python -m score_jax\.data\.repair.*not public"):
        problems.load("mbpp_repair", "", "test")


def test_the_row_ends_where_the_second_attempt_begins():
    template = templates.make(
        "plain",
        tokenizer.characters(),
        system="",
        prompt_format=prompts.PROMPTS["arithmetic"][0],
        instruction="?",
    )
    problem = problems.Problem("a", "1+2=", "3", first_attempt="4:3")
    found = pipeline.tokenise([problem], template.first_turn)
    # As in data/arithmetic.py: prompt, attempt 1 and its end token, instruction.
    assert template.tokenizer.decode(found.tokens) == "1+2=4:3.?"
