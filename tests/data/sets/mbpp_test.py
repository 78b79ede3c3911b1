import json
import shutil

import pytest

from score_jax.data import problems
from score_jax.data.sets import mbpp
from score_jax.problem import InputError
from score_jax.text import prompts
from tests.data.real import REAL, needs_real_data

pytestmark = needs_real_data
FOLDER = str(REAL / "mbpp")


def load(split):
    return problems.load("mbpp", FOLDER, split)


@pytest.fixture
def copy(tmp_path):
    """The published rows, and a function that writes rows to the folder's file."""
    shutil.copy(REAL / "mbpp" / "mbpp.jsonl", tmp_path)
    file = tmp_path / "mbpp.jsonl"
    file.chmod(0o644)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return rows, lambda new: file.write_text("".join(json.dumps(row) + "\n" for row in new))


def test_the_splits_are_the_published_ones():
    ids = {split: [p.id for p in load(split)] for split in mbpp.SPLITS}
    assert {split: len(found) for split, found in ids.items()} == {
        "prompt": 10,
        "test": 500,
        "validation": 90,
        "train": 374,
    }
    assert ids["train"] == [f"mbpp/{n}" for n in range(601, 975)]
    assert ids["validation"] == [f"mbpp/{n}" for n in range(511, 601)]
    joined = [problem.id for problem in load("train+validation")]
    assert joined == ids["train"] + ids["validation"]


def test_the_prompt_shows_all_tests_as_the_papers_examples_do():
    found = load("train")[0]
    text, blank, *tests = found.prompt.split("\n")
    assert text.startswith("Write a function to find the longest chain ")
    assert text.endswith(" Your code should pass these tests:")
    gold = json.loads(found.gold)
    assert blank == "" and tests == gold["tests"] and len(tests) == 3
    assert gold["setup"] == gold["prelude"] == "" and found.grader == "program"
    assert not any("\r" in problem.prompt + problem.gold for problem in load("test"))


def test_setup_code_goes_to_the_grader_and_not_into_the_prompt():
    found = next(problem for problem in load("train") if problem.id == "mbpp/927")
    assert json.loads(found.gold)["setup"].startswith("root = Node(1)")
    assert "Node" not in found.prompt


def test_the_worked_examples_of_the_prompt_are_tasks_2_3_and_4():
    rows = mbpp.examples(REAL / "mbpp" / "mbpp.jsonl", "prompt")
    shown = prompts.MBPP.split("\n[DONE]\n")
    before = "You are an expert Python programmer, and here is your task: "
    for task, example in zip(mbpp.SHOTS, shown, strict=False):
        row = rows[task - 1]
        expected = f"{before}{mbpp.problem(row).prompt}\n[BEGIN]\n{row['code'].rstrip()}"
        assert example.lstrip("\n") == expected
    trained = {problem.id for problem in load("train+validation")}
    assert not trained & {f"mbpp/{task}" for task in mbpp.SHOTS}


def test_the_query_reads_as_the_examples_do():
    prompt_format, _ = prompts.PROMPTS["mbpp"]
    query = prompt_format.replace("{problem}", load("train")[0].prompt)
    parts = query.split("\n[DONE]\n")
    assert len(parts) == 4 and parts[3].endswith("\n[BEGIN]\n")
    assert "\n\nassert " in parts[3]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rows: rows[:427], r"mbpp\.jsonl: has 427 rows, but .* has 974"),
        (lambda rows: [*rows[:-1], rows[0]], r"line 974: task_id 1 occurs a second time"),
        (lambda rows: [rows[0] | {"task_id": "1"}, *rows[1:]], r"line 1: .*'task_id' must be"),
        (lambda rows: [rows[0] | {"test_list": "no"}, *rows[1:]], r"line 1: .*list of strings"),
        (lambda rows: [rows[0] | {"test_list": []}, *rows[1:]], r"other content"),
        (lambda rows: [*rows[:700], rows[700] | {"text": "Sum."}, *rows[701:]], "other content"),
    ],
)
def test_another_content_is_refused(copy, tmp_path, function, message):
    rows, write = copy
    write(function(rows))
    with pytest.raises(InputError, match=message):
        problems.load("mbpp", str(tmp_path), "train")


def test_unknown_split_names_the_splits():
    with pytest.raises(InputError, match=r"prompt, test, validation, train, or several .*'valid'"):
        load("train+valid")
