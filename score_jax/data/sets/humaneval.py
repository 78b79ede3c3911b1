"""HumanEval: 164 Python functions to write from signature and docstring (Chen et al. 2021).

For evaluation only, as in the SCoRe paper: there is no train split. The policy sees the published
prompt; the grader gets the published `check` and a call of it. Some prompts hold more than the
requested function: imports, and in four problems a finished helper (`poly`, `encode_cyclic`, …)
that the tests may call too. That part is the gold's "prelude": trusted code, not the policy's. The
beginning of the requested function is the "stub", for answers that only continue it, as those of
base models do.
"""

import ast
import json
import pathlib

from score_jax.data.files import prepared, published
from score_jax.data.files.published import Published
from score_jax.data.sets import jsonl
from score_jax.problem import InputError, Problem

NAME = "humaneval"
FILE = Published(
    "HumanEval.jsonl.gz",
    "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz",
    (164,),
    "88e1130c64fea8a3",
)
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def examples(path: pathlib.Path, split: str) -> list[dict[str, str]]:
    """The rows of the published file, checked."""
    _check_split(split)
    numbered = list(jsonl.rows(path))
    published.check_count(len(numbered), path, FILE)
    found = [
        {name: jsonl.text_field(row, name, path, number) for name in FIELDS}
        for number, row in numbered
    ]
    jsonl.unique([(number, row["task_id"]) for number, row in numbered], path)
    contents = ([row[name] for name in FIELDS] for row in found)
    published.check_digest([published.digest(contents)], path, FILE)
    return sorted(found, key=lambda row: int(row["task_id"].rpartition("/")[2]))


def problem(row: dict[str, str]) -> Problem:
    """The problem of an example; its test is the published check and a call of it."""
    test = f"{row['test'].strip()}\n\ncheck({row['entry_point']})\n"
    prelude, stub = parts(row["prompt"], row["entry_point"])
    names = {"entry_points": [row["entry_point"]], "prelude": prelude, "stub": stub}
    gold = {"tests": [test], "setup": "", **names}
    return Problem(
        id=f"{NAME}/{row['task_id'].rpartition('/')[2]}",
        prompt=row["prompt"],
        gold=json.dumps(gold),
        grader="program",
    )


def parts(prompt: str, entry_point: str) -> tuple[str, str]:
    """(prelude, stub): the prompt's code apart from the requested function, and that function's."""
    asked, others = "", []
    for node in ast.parse(prompt).body:
        source = ast.get_source_segment(prompt, node) or ""
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            asked = f"{source}\n"
        else:
            others.append(source)
    return "\n".join(others), asked


def problems(path: str, split: str) -> list[Problem]:
    """Problems of "test", from a folder with HumanEval.jsonl.gz, a URL, or TFDS."""
    _check_split(split)
    return [problem(row) for row in prepared.examples(NAME, path, split, FILE, examples)]


def _check_split(split: str) -> None:
    if split != "test":
        raise InputError(
            f"HumanEval is for evaluation only and has no {split!r} split. Train on another set "
            f"(config.problems.name=mbpp) and set config.problems.test.name=humaneval."
        )
