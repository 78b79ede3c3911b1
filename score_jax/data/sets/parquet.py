"""Problems from Parquet files, as the hub and pandas write them; fields as in own_rows.py.

Values that JSON cannot hold become text (dates), binary values (images) are left out.
"""

import decimal
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from score_jax.data.sets import jsonl
from score_jax.problem import InputError, Problem

SUFFIXES = (".parquet",)
_BATCH = 1_000  # rows converted together


def problems(
    path: str, split: str, fields: Mapping[str, str] | None = None, setting: str = "config.problems"
) -> list[Problem]:
    """Problems of one split of a folder (train.parquet, test.parquet) or of a single file.

    fields, setting: see own_rows.py. A single file is split as a single .jsonl file is.
    """
    return jsonl.of_files(path, split, fields or {}, setting, rows, "row", SUFFIXES)


def rows(file: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number counted from 1, row). Raises: InputError if the file cannot be read."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _plain(row)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"cannot read {file} as Parquet: {str(error)[:200]}. Name a complete .parquet file, or "
            "a folder that holds train.parquet and test.parquet."
        ) from error
    if not number:
        raise InputError(f"{file}: holds no problems, so there is nothing to train on or evaluate.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not isinstance(v, bytes)}
    if isinstance(value, list):
        return [_plain(item) for item in value if not isinstance(item, bytes)]
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value if isinstance(value, str | int | float | type(None)) else str(value)
