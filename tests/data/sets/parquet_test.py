import datetime
import json

import pyarrow
import pyarrow.parquet
import pytest

from score_jax.data import problems
from score_jax.data.sets import parquet
from score_jax.problem import InputError

# As verl writes its data.
ROWS = [
    {
        "prompt": [{"role": "user", "content": f"{n} + {n}?"}],
        "reward_model": {"style": "rule", "ground_truth": 2 * n},
        "extra_info": {"index": n, "parts": [n, n]},
        "made": datetime.date(2026, 1, 1),
        "image": b"\xff",
    }
    for n in range(2500)
]
FIELDS = {"problem": "prompt", "answer": "reward_model.ground_truth", "id": "extra_info.index"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("verl") / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def test_rows_are_read_with_their_fields(file):
    found = problems.load("parquet", str(file.parent), "train", fields=FIELDS)
    assert [(p.id, p.prompt, p.gold) for p in found] == [
        (str(n), f"{n} + {n}?", str(2 * n)) for n in range(2500)
    ]
    last = found[-1]
    assert last.where == f"{file}, row 2500"
    assert last.fields["extra_info"] == {"index": 2499, "parts": [2499, 2499]}
    assert last.fields["made"] == "2026-01-01" and "image" not in last.fields
    json.dumps(dict(last.fields))  # so that reward functions in other processes get them


def test_a_single_file_is_split_as_lines_are(file):
    train = problems.load("parquet", str(file), "train", fields=FIELDS)
    test = problems.load("parquet", str(file), "test", fields=FIELDS)
    assert len(train) + len(test) == 2500 and 180 < len(test) < 320


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_text('{"problem": "1+1?", "answer": "2"}')
    with pytest.raises(InputError, match=r"cannot read .*train\.parquet as Parquet: .*magic"):
        parquet.problems(str(tmp_path), "train")
    with pytest.raises(InputError, match=r"test\.parquet: no such file.*holds train\.parquet"):
        parquet.problems(str(tmp_path), "test")


def test_a_file_without_rows_is_refused(tmp_path):
    empty = pyarrow.table({"problem": pyarrow.array([], pyarrow.string())})
    pyarrow.parquet.write_table(empty, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"train\.parquet: holds no problems"):
        parquet.problems(str(tmp_path), "train")
