"""Any data set that TensorFlow Datasets has prepared, with a map from its fields to ours.

    config.problems.name   = "tfds:NAME", or "tfds:NAME/CONFIG"
    config.problems.path   = the TFDS folder; empty: TFDS's default
    config.problems.fields = {"problem": "question", "answer": "final", "level": "difficulty"}

own_rows.py says what fields there are. Splits are those of TFDS: "train", "validation",
"train[:90%]". If preparing a data set needs TensorFlow, prepare it beforehand, as ArrayRecord:
`tfds build --file_format=array_record`.
"""

from collections.abc import Mapping

from score_jax.data.files import prepared
from score_jax.data.sets import own_rows
from score_jax.problem import Problem

PREFIX = "tfds:"


def problems(
    name: str, path: str, split: str, fields: Mapping[str, str], setting: str = "config.problems"
) -> list[Problem]:
    """Problems of one split. Raises: InputError naming the field or row that does not fit."""
    data_set = name.removeprefix(PREFIX)
    rows = prepared.rows(data_set, split, data_dir=path or None)
    numbered = (
        (f"{name}, split {split!r}, row {number}", f"{data_set}/{split}/{number}", row)
        for number, row in enumerate(rows, start=1)
    )
    return own_rows.problems(numbered, fields, setting)
