"""GSM8K: grade-school word problems whose answer is one number (Cobbe et al. 2021).

Read through TensorFlow Datasets' ArrayRecord files (no TensorFlow involved; downloaded and
prepared on first use), or from the published train.jsonl and test.jsonl. Both hold the same
problems, TFDS in a shuffled order of its own: ids count positions and differ between the two.
The worked solution before `####` is not kept: SCoRe learns from its own samples.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

from score_jax.data import jsonl
from score_jax.problem import InputError, Problem

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_ORIGIN = "https://raw.githubusercontent.com"  # where the TFDS builder downloads from


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
    """Reads the prepared ArrayRecord files, preparing them first where that was not done yet.

    Args:
      data_dir: the TFDS folder; None is TFDS's own default (TFDS_DATA_DIR, ~/tensorflow_datasets).
    """
    try:
        source = _data_source(split, data_dir)
    except (
        Exception
    ) as error:  # the network, the disk, files of another format: TFDS has no one type
        raise InputError(
            f"cannot get gsm8k from TensorFlow Datasets ({type(error).__name__}: {error!s:.300}). "
            f"Give it network access once, or point --config.problems.path=FOLDER at a folder with "
            f"the published train.jsonl and test.jsonl."
        ) from error
    found = []
    for position, row in enumerate(source, start=1):
        name = f"gsm8k/{split}/{position}"
        found.append(
            _problem(row["question"].decode(), row["answer"].decode(), name, f"TFDS {name}")
        )
    if not found:
        raise InputError(f"gsm8k in TensorFlow Datasets has no problem in its {split!r} split.")
    return found


def gold(answer: str) -> str | None:
    """The number after the last `####`, without thousands commas; None where there is none."""
    _, mark, tail = answer.rpartition("####")
    number = tail.strip().replace(",", "")
    return number if mark and _NUMBER.fullmatch(number) else None


def _problem(question: str, answer: str, name: str, where: str) -> Problem:
    number = gold(answer)
    if number is None:
        raise InputError(
            f"{where}: the answer must end with `#### N`, N a number, "
            f"but it ends with {answer[-40:]!r}."
        )
    return Problem(id=name, prompt=question, gold=number)


def _data_source(split: str, data_dir: str | None) -> Sequence[dict[str, Any]]:
    import tensorflow_datasets as tfds

    # Registers the builder: TFDS's own look-up by name stops at the first builder that needs
    # TensorFlow, and does not get as far as this one.
    import tensorflow_datasets.text.gsm8k

    if data_dir is not None:
        pathlib.Path(data_dir).mkdir(parents=True, exist_ok=True)
    form = {"file_format": "array_record"}
    if not tfds.builder("gsm8k", data_dir=data_dir, **form).is_prepared():
        _require_network()
    return tfds.data_source("gsm8k", split=split, data_dir=data_dir, builder_kwargs=form)


def _require_network() -> None:
    """Raises at once without a network, where TFDS would go on retrying for minutes."""
    import requests  # what TFDS downloads with, so proxies and certificates are the same

    requests.head(_ORIGIN, timeout=20)
