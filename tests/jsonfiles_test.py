import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from score_jax import jsonfiles


@dataclasses.dataclass(frozen=True)
class _Settings:
    name: str
    steps: tuple[int, ...]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    jsonfiles.write(tmp_path / "a.json", {"nan": float("nan"), "inf": [np.float32("inf"), 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"nan": None, "inf": [None, 1.5]}


def test_values_of_every_kind_become_plain_json():
    value = {
        "dataclass": _Settings("x", (1, 2)),
        "config": ml_collections.ConfigDict({"a": {"b": 1}}),
        "numpy": np.arange(3),
        "scalar": np.float32(0.5),
        "jax": jnp.float32(0.25),
        "path": Path("runs") / "a",
        "flag": np.bool_(True),
        3: None,
    }
    assert json.loads(jsonfiles.line(value)) == {
        "dataclass": {"name": "x", "steps": [1, 2]},
        "config": {"a": {"b": 1}},
        "numpy": [0, 1, 2],
        "scalar": 0.5,
        "jax": 0.25,
        "path": "runs/a",
        "flag": True,
        "3": None,
    }


def test_odd_characters_of_a_model_stay_on_one_line(tmp_path):
    text = "lone \udc80, line ends \u2028 \x85 \x1e, π"
    jsonfiles.write_lines(tmp_path / "a.jsonl", [{"text": text}, {"text": "b"}])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [text, "b"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.jsonl"
    jsonfiles.write_lines(path, [1])

    def rows():
        yield 2
        raise RuntimeError("the run was killed here")

    with pytest.raises(RuntimeError):
        jsonfiles.write_lines(path, rows())
    assert path.read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_write_that_cannot_be_finished_leaves_no_part(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(jsonfiles.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        jsonfiles.write(tmp_path / "a.json", 1)
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_its_rows_is_read_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "é", "n": n} for n in range(3)]
    jsonfiles.write_counted(path, rows)
    assert jsonfiles.read_counted(path) == rows
    whole = path.read_bytes()
    for end in range(len(whole) - 1):  # of the last byte, an end of line, nothing depends
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):
            jsonfiles.read_counted(path)
    path.write_bytes(whole.replace(b"text", b"te\xfft", 1))
    with pytest.raises(ValueError):
        jsonfiles.read_counted(path)
    jsonfiles.write_counted(path, [])
    assert jsonfiles.read_counted(path) == []
    jsonfiles.write_lines(path, rows)  # as earlier versions did
    assert jsonfiles.read_counted(path) == rows
