"""Any data set that TensorFlow Datasets has prepared, with a map from its fields to ours.

    config.problems.name   = "tfds:NAME", or "tfds:NAME/CONFIG"
    config.problems.path   = the TFDS folder; empty: TFDS's default
    config.problems.fields = {"problem": "question", "answer": "final", "level": "difficulty"}

"problem" and "answer" name the fields that hold the text and the right answer, in the form that the
answer grader takes. "id" may name one, and every other entry becomes a tag. Splits are those of
TFDS: "train", "validation", "train[:90%]". Answers are text or numbers. A field inside another
field cannot be named. If preparing a data set needs TensorFlow, prepare it beforehand, as
ArrayRecord: `tfds build --file_format=array_record`.
"""

from collections.abc import Mapping
from typing import Any

from score_jax.data.files import prepared
from score_jax.problem import InputError, Problem

PREFIX = "tfds:"


def problems(name: str, path: str, split: str, fields: Mapping[str, str]) -> list[Problem]:
    """Problems of one split. Raises: InputError naming the field or row that does not fit."""
    wanted = {"problem", "answer"} - fields.keys()
    if wanted:
        raise InputError(
            f"config.problems.name={name!r} needs config.problems.fields, which says which field "
            f"of the data set is the problem and which the answer; {' and '.join(sorted(wanted))} "
            'is missing. For example {"problem": "question", "answer": "final"}.'
        )
    data_set = name.removeprefix(PREFIX)
    rows = prepared.rows(data_set, split, data_dir=path or None)
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{name}, split {split!r}, row {number}"
        values = {ours: _text(row, theirs, where) for ours, theirs in fields.items()}
        prompt, gold = values.pop("problem"), values.pop("answer")
        for ours, text in (("problem", prompt), ("answer", gold)):
            if not text.strip():
                raise InputError(f"{where}: field {fields[ours]!r} (the {ours}) is empty.")
        identity = values.pop("id", f"{data_set}/{split}/{number}")
        found.append(Problem(id=identity, prompt=prompt, gold=gold, tags=values))
    return found


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise InputError(
            f"{where}: there is no field {field!r}, which config.problems.fields names. The fields "
            f"are {', '.join(sorted(row))}."
        )
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(
            f"{where}: field {field!r} must be text or a number, got {str(value)[:60]!r}. Choose "
            "another field in config.problems.fields."
        )
    return str(value)
