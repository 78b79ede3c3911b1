"""Files of a user's own problems as people write them: what is read, and what is refused how."""

import gzip
import json

import pytest

from score_jax.data import problems
from score_jax.data.sets import jsonl
from score_jax.problem import InputError

ROWS = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(3)]


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(tmp_path, content: bytes, **how):
    (tmp_path / "train.jsonl").write_bytes(content)
    return problems.load("jsonl", str(tmp_path), "train", **how)


def test_gzipped_files_of_a_folder_are_found_under_the_name_that_gzip_gives_them(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)))
    found = problems.load("jsonl", str(tmp_path), "train")
    assert [problem.gold for problem in found] == ["0", "2", "4"]
    single = jsonl.problems(str(tmp_path / "train.jsonl.gz"), "train")
    assert [problem.id for problem in single] == ["train/1", "train/2", "train/3"]


def test_a_mark_of_byte_order_before_utf_8_is_no_content(tmp_path):
    found = read(tmp_path, b"\xef\xbb\xbf" + lines(ROWS))
    assert [problem.gold for problem in found] == ["0", "2", "4"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_with_the_command_that_converts_it(tmp_path, encoding):
    with pytest.raises(InputError, match=r"train\.jsonl is text in UTF-16.*iconv -f UTF-16"):
        read(tmp_path, lines(ROWS).decode().encode(encoding))


@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_array_is_refused_with_the_command_that_makes_lines_of_it(tmp_path, indent):
    with pytest.raises(InputError, match=r"is one JSON array.*json\.dumps\(row\)"):
        read(tmp_path, json.dumps(ROWS, indent=indent).encode())


def test_objects_over_several_lines_are_refused_as_that(tmp_path):
    with pytest.raises(InputError, match="JSON objects over several lines"):
        read(tmp_path, json.dumps(ROWS[0], indent=2).encode())


def test_a_parquet_file_under_another_name_is_called_one(tmp_path):
    with pytest.raises(InputError, match=r"is a Parquet file.*problems\.name=parquet"):
        read(tmp_path, b"PAR1\0\0")


def test_a_folder_may_have_other_splits_and_a_single_file_may_not(tmp_path):
    (tmp_path / "validation.jsonl").write_bytes(lines(ROWS))
    assert len(problems.load("jsonl", str(tmp_path), "validation")) == 3
    with pytest.raises(InputError, match="splits train and test, not 'validation'"):
        problems.load("jsonl", str(tmp_path / "validation.jsonl"), "validation")


def test_a_missing_file_is_answered_with_what_the_folder_holds(tmp_path):
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(InputError, match=r"train\.jsonl: no such file.*holds data\.csv"):
        problems.load("jsonl", str(tmp_path), "train")
