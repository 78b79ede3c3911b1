"""MBPP: short Python functions, each with three tests (Austin et al. 2021).

The published file has 974 tasks; the task id decides the split. The SCoRe paper does not say on
which part of MBPP it trains: here it is the 374 tasks of "train", or 464 with
`split="train+validation"`. Tasks 2, 3 and 4, the worked examples of the paper's prompt, are in
neither.

All tests of `test_list` are shown, as in the paper, and all must pass. The extra tests of eleven
tasks (`challenge_test_list`) are neither shown nor run.
"""

import ast
import json
import pathlib
from typing import Any

from score_jax.data.files import prepared, published
from score_jax.data.files.published import Published
from score_jax.data.sets import jsonl
from score_jax.problem import InputError, Problem

NAME = "mbpp"
FILE = Published(
    "mbpp.jsonl",
    "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl",
    (974,),
    "d11c679583883c71",
)
SPLITS = {  # task ids
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
SHOTS = (2, 3, 4)  # the tasks worked out in text.prompts.MBPP
_CONTENT = ("task_id", "text", "code", "test_setup_code", "test_list")


def examples(path: pathlib.Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split (or of several, joined by "+") of the published file, checked."""
    chosen = [task for part in split.split("+") for task in _tasks(part)]
    numbered = list(jsonl.rows(path))
    published.check_count(len(numbered), path, FILE)
    rows = {}
    for number, row in numbered:
        task = row.get("task_id")
        if isinstance(task, bool) or not isinstance(task, int) or not 1 <= task <= 974:
            raise InputError(
                f"{path}, line {number}: field 'task_id' must be a number from 1 to 974, got "
                f"{task!r}; it decides the split."
            )
        if task in rows:
            raise InputError(f"{path}, line {number}: task_id {task} occurs a second time.")
        rows[task] = {
            "task_id": task,
            "text": jsonl.text_field(row, "text", path, number),
            "code": published.string(row, "code", path, number),
            "test_setup_code": published.string(row, "test_setup_code", path, number),
            "test_list": published.strings(row, "test_list", path, number),
            "challenge_test_list": published.strings(row, "challenge_test_list", path, number),
        }
    contents = ([row[name] for name in _CONTENT] for row in rows.values())
    published.check_digest([published.digest(contents)], path, FILE)
    return [rows[task] for task in chosen]


def problem(row: dict[str, Any]) -> Problem:
    """The problem of an example, its tests in the prompt."""
    tests = list(row["test_list"])
    setup = row["test_setup_code"]
    names = _entry_points(row["code"], [setup, *tests])
    gold = {"tests": tests, "setup": setup, "entry_points": names, "prelude": ""}
    return Problem(
        id=f"{NAME}/{row['task_id']}",
        prompt="\n".join([f"{row['text']} Your code should pass these tests:", "", *tests]),
        gold=json.dumps(gold),
        grader="program",
        solution="\n".join(row["code"].split("\r\n")).strip(),
    )


def _entry_points(code: str, tests: list[str]) -> list[str]:
    """The names of the reference that tests use: its function, in some tasks a class too."""
    used = {
        node.id for one in tests for node in ast.walk(ast.parse(one)) if isinstance(node, ast.Name)
    }
    defined = (getattr(node, "name", "") for node in ast.parse(code).body)
    return sorted(used.intersection(defined))


def problems(path: str, split: str) -> list[Problem]:
    """Problems of a split, from a folder with mbpp.jsonl, a URL, or TFDS."""
    for part in split.split("+"):
        _tasks(part)
    return [problem(row) for row in prepared.examples(NAME, path, split, FILE, examples)]


def _tasks(split: str) -> range:
    if split not in SPLITS:
        raise InputError(
            f"MBPP has splits {', '.join(SPLITS)}, or several joined by '+', not {split!r}."
        )
    return SPLITS[split]
