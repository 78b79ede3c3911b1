"""MATH in the split of Lightman et al. 2023, as in the SCoRe paper: 12,000 to train, 500 to test.

The test split is MATH500; the train split is the rest of MATH (Hendrycks et al. 2021), including
its old test problems. One problem of the 12,000 is twice in the published file. It is kept once, so
11,999 are trained on; copies of the file without the second one are the same data set. Another pair
differs only in a blank; both stay. Two published answers are empty and are filled in here. Problems
are ordered by their published ids, whatever the order of the file, so that two copies train alike.
SCoRe learns from its own samples; the worked solutions are for a warm start.
"""

import pathlib
import re
from typing import Any

from absl import logging

from score_jax.data.files import prepared, published
from score_jax.data.files.published import Published
from score_jax.data.sets import jsonl
from score_jax.problem import InputError, Problem

NAME = "math"
_URL = "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits"
FILES = {
    "train": Published("train.jsonl", f"{_URL}/train.jsonl", (12_000, 11_999), "df2beb69a6c613f6"),
    "test": Published("test.jsonl", f"{_URL}/test.jsonl", (500,), "9b34dbfc465f4c3d"),
}
FIELDS = ("problem", "solution", "answer", "subject", "level", "unique_id")
# Their published solutions box no answer; both argue that there is no such prime.
_ANSWERS = {"train/number_theory/7115.json": "0", "train/number_theory/7117.json": "0"}
_LEVEL = re.compile(r"(?:Level )?([1-5])")


def examples(path: pathlib.Path, split: str) -> list[dict[str, str]]:
    """The rows of a published file, checked, each problem once, ordered by id."""
    file = FILES[split]
    numbered = list(jsonl.rows(path))
    published.check_count(len(numbered), path, file)
    found = [
        {
            "problem": jsonl.text_field(row, "problem", path, number),
            "solution": jsonl.text_field(row, "solution", path, number),
            "answer": published.string(row, "answer", path, number),
            "subject": jsonl.text_field(row, "subject", path, number),
            "level": _level(row, path, number),
            "unique_id": jsonl.text_field(row, "unique_id", path, number),
        }
        for number, row in numbered
    ]
    jsonl.unique([(number, row["unique_id"]) for number, row in numbered], path)
    found.sort(key=lambda row: row["unique_id"])
    # A copy of the file may lack either row of the repeated problem: both digests are tried.
    kept_last = {row["problem"]: row for row in found}
    kept_first = {row["problem"]: row for row in reversed(found)}
    content_of = {
        published.digest((row["problem"], row["answer"]) for row in kept.values()): kept
        for kept in (kept_last, kept_first)
    }
    kept = content_of[published.check_digest(content_of, path, file)]
    if len(kept) < len(found):
        dropped = len(found) - len(kept)
        logging.info("%s: left out %d of %d rows: repeated problems.", path, dropped, len(found))
    return sorted(kept.values(), key=lambda row: row["unique_id"])


def problem(row: dict[str, Any]) -> Problem:
    """The problem of an example."""
    return Problem(
        id=f"{NAME}/{row['unique_id'].removesuffix('.json')}",
        prompt=row["problem"],
        gold=row["answer"] or _ANSWERS[row["unique_id"]],
        solution=row["solution"].strip(),
        tags={"level": row["level"], "subject": row["subject"]},
    )


def problems(path: str, split: str) -> list[Problem]:
    """Problems of "train" or "test", from a folder of the published files, a URL, or TFDS."""
    if split not in FILES:
        raise InputError(f"MATH has splits {', '.join(FILES)}, not {split!r}.")
    return [problem(row) for row in prepared.examples(NAME, path, split, FILES[split], examples)]


def _level(row: dict[str, Any], path: pathlib.Path, number: int) -> str:
    """ "Level 3" from "Level 3" or 3. Two problems have no known level: "Level ?"."""
    level = str(row.get("level", ""))
    if level in ("Level ?", "?"):
        return "Level ?"
    match = _LEVEL.fullmatch(level)
    if not match:
        raise InputError(
            f"{path}, line {number}: field 'level' must be 'Level 1' … 'Level 5' or 1 … 5, got "
            f"{level!r}."
        )
    return f"Level {match[1]}"
