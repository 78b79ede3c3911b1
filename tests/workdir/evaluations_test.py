"""Evaluations whose files cannot be read count as missing."""

import pytest

from score_jax import jsonfiles
from score_jax.workdir import evaluations

GOOD = {"n": 8, "interval": {}}


def write(folder, *names):
    for name in names:
        jsonfiles.write(folder / "evaluations" / f"{name}.json", GOOD)


@pytest.mark.parametrize("content", [b"", b'{"n": 8, "int', b"[]", b"\xff", b'{"n": 8}'])
def test_a_file_that_cannot_be_read_is_set_aside_once_and_is_missing(tmp_path, content):
    write(tmp_path, "base", "stage1", "stage1-2")
    path = tmp_path / "evaluations" / "base.json"
    path.write_bytes(content)
    assert evaluations.read(path) is None
    (line,) = evaluations.set_aside_damaged(tmp_path)
    assert line.startswith(f"{path} cannot be read (") and "base.json.damaged" in line
    assert evaluations.set_aside_damaged(tmp_path) == []
    assert (tmp_path / "evaluations" / "base.json.damaged").read_bytes() == content
    assert evaluations.read(tmp_path / "evaluations" / "stage1.json") == GOOD


def test_steps_within_a_stage_are_set_aside_until_they_are_made_again(tmp_path):
    write(tmp_path, "base", "stage1", "stage1-2", "stage1-4", "stage1-4.few")
    for name in ("stage1-2", "stage1-4.few", "stage1"):
        (tmp_path / "evaluations" / f"{name}.json").write_text("")
    evaluations.set_aside_damaged(tmp_path)
    assert evaluations.set_aside(tmp_path) == [("stage1", 2), ("stage1", 4)]
    write(tmp_path, "stage1-2", "stage1-4.few")
    assert evaluations.set_aside(tmp_path) == []
