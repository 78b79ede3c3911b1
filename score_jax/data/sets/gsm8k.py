"""GSM8K: grade-school word problems whose answer is one number (Cobbe et al. 2021).

Read from the ArrayRecord files of TensorFlow Datasets (without TensorFlow; downloaded and prepared
at the first use), or from the published train.jsonl and test.jsonl. Both hold the same problems,
but TFDS has shuffled them. Ids count positions, so they differ between the two. SCoRe learns from
its own samples; the worked solution before `####` is kept for a warm start, without the marks of
its calculator (<<48/2=24>>).
"""

import re

from score_jax.data.files import prepared
from score_jax.data.sets import jsonl
from score_jax.problem import InputError, Problem

NAME = "gsm8k"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_BUILDER = "tensorflow_datasets.text.gsm8k"  # TFDS's own
_FILES = "train.jsonl and test.jsonl"


def problems(path: str, split: str) -> list[Problem]:
    """Problems of one split, from the jsonl files in the folder `path`; empty means TFDS."""
    return from_jsonl(path, split) if path else from_tfds(split)


def from_jsonl(path: str, split: str) -> list[Problem]:
    """Reads FOLDER/train.jsonl or FOLDER/test.jsonl as published: "question", "answer"."""
    file = jsonl.split_file(path, split)
    found = []
    for number, row in jsonl.rows(file):
        question = jsonl.text_field(row, "question", file, number)
        answer = jsonl.text_field(row, "answer", file, number)
        found.append(
            _problem(question, answer, f"gsm8k/{split}/{number}", f"{file}, line {number}")
        )
    return found


def from_tfds(split: str, data_dir: str | None = None) -> list[Problem]:
    """Reads the ArrayRecord files of TFDS, which are prepared first if needed.

    Args:
      data_dir: the TFDS folder; None is TFDS's own default (TFDS_DATA_DIR, ~/tensorflow_datasets).
    """
    found = []
    rows = prepared.rows(NAME, split, module=_BUILDER, data_dir=data_dir, files=_FILES)
    for position, row in enumerate(rows, start=1):
        name = f"gsm8k/{split}/{position}"
        found.append(_problem(row["question"], row["answer"], name, f"TFDS {name}"))
    return found


def _problem(question: str, answer: str, name: str, where: str) -> Problem:
    """Its gold is the number after the last `####`, without thousands commas."""
    worked, mark, tail = answer.rpartition("####")
    number = tail.strip().replace(",", "")
    if not mark or not _NUMBER.fullmatch(number):
        raise InputError(
            f"{where}: the answer must end with `#### N`, where N is a number, "
            f"but it ends with {answer[-40:]!r}."
        )
    solution = _CALCULATOR.sub("", worked).strip()
    return Problem(id=name, prompt=question, gold=number, solution=solution)
