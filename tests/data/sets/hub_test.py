"""Data sets of the hub, from a cache laid out as its client does; nothing here uses a network."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from score_jax.data import problems
from score_jax.data.sets import hub
from score_jax.problem import InputError

FIELDS = {"problem": "question"}


def write(folder: Path, names: list[str]) -> None:
    """A file of two problems under each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rows = [{"question": f"{name} {n}?", "answer": n} for n in range(2)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Stands for the client: the folders of revisions; what was asked of it."""
    asked = []

    def snapshot_download(repo, *, revision, local_files_only, **_):
        asked.append((repo, revision, local_files_only))
        folder = tmp_path / (revision or "main").replace("/", "-")
        if not folder.exists():
            raise OSError("no such revision here")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def prompts(name="hf:o/n", split="train", **how):
    return [p.prompt for p in problems.load(name, "", split, fields=FIELDS, **how)]


def test_the_files_of_a_split_are_read_in_order_and_the_others_are_not(downloads, tmp_path):
    shards = [f"data/train-0000{n}-of-00002.parquet" for n in range(2)]
    write(tmp_path / "main", [*shards, "data/test-00000-of-00001.parquet"])
    found = problems.load("hf:o/n", "", "train", fields=FIELDS)
    assert [p.prompt for p in found] == [f"{name} {n}?" for name in shards for n in range(2)]
    assert [p.id for p in found] == [f"o/n/train/{n}" for n in range(1, 5)]
    assert found[2].where == "hf:o/n, split 'train', row 3"
    assert downloads == [("o/n", None, True)]  # all of it was there


def test_a_split_of_which_a_file_is_missing_is_asked_of_the_network(downloads, tmp_path):
    write(tmp_path / "main", ["data/train-00000-of-00002.parquet"])
    with pytest.raises(InputError, match="has no Parquet files of a split 'train'"):
        prompts()
    assert ("o/n", None, False) in downloads


def test_where_names_do_not_say_how_many_files_there_are_the_network_is_asked(downloads, tmp_path):
    write(tmp_path / "main", ["train.parquet"])
    assert len(prompts()) == 2
    assert downloads[-1] == ("o/n", None, False)


def test_the_files_that_the_hub_made_are_the_second_choice(downloads, tmp_path):
    write(tmp_path / "refs-convert-parquet", ["default/train/0000.parquet"])
    assert prompts() == [f"default/train/0000.parquet {n}?" for n in range(2)]


def test_one_configuration_must_be_chosen_where_there_are_several(downloads, tmp_path):
    write(tmp_path / "main", [f"{c}/train-00000-of-00001.parquet" for c in ("main", "socratic")])
    with pytest.raises(InputError, match=r"in main, socratic\. Set .*hf:o/n/main"):
        prompts()
    assert prompts("hf:o/n/socratic")[0].startswith("socratic/")


def test_a_revision_is_asked_for_and_nothing_else(downloads, tmp_path):
    write(tmp_path / "v1", ["train.parquet"])
    assert len(prompts("hf:o/n@v1")) == 2
    assert {revision for _, revision, _ in downloads} == {"v1"}


@pytest.mark.parametrize("split", ["validation", "tra"])
def test_a_split_that_is_not_there_is_refused(downloads, tmp_path, split):
    write(tmp_path / "main", ["data/train-00000-of-00001.parquet"])
    with pytest.raises(InputError, match=rf"hf:o/n has no Parquet files of a split '{split}'"):
        prompts(split=split)


def test_a_name_without_owner_and_a_path_are_refused():
    with pytest.raises(InputError, match=r"names no data set of the hub\. Write hf:OWNER/NAME"):
        prompts("hf:gsm8k")
    with pytest.raises(InputError, match=r"path='x' has no meaning"):
        hub.problems("hf:o/n", "x", "train", FIELDS)


def test_without_the_client_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"needs huggingface_hub.*pip install 'score-jax\[hub\]'"):
        prompts()


def test_the_client_finds_what_it_has_cached_without_a_network(tmp_path, monkeypatch):
    cached = tmp_path / "hub" / "datasets--o--n"
    write(cached / "snapshots" / ("0" * 40), ["data/train-00000-of-00001.parquet"])
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    program = (
        "from score_jax.data import problems\n"
        f"found = problems.load('hf:o/n', '', 'train', fields={FIELDS})\n"
        "print([problem.gold for problem in found])"
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "['0', '1']\n", done.stderr
