"""Models and problems in a bucket, fetched into the user's cache."""

from pathlib import Path

import pytest

from score_jax.buckets import places, sources
from score_jax.buckets.client import Folder
from score_jax.problem import InputError
from tests.emulator import BUCKET


@pytest.fixture
def there(tmp_path, store, monkeypatch) -> Folder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Folder(f"gs://{BUCKET}/{tmp_path.name}")


def put(folder: Folder, *names: str) -> None:
    for name in names:
        folder.upload(name, name.encode())


def names(path: str) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in Path(path).rglob("*") if p.is_file())


def test_what_is_no_url_stays_as_it_is():
    assert sources.local("runs/x") == "runs/x" and sources.model("owner/name") == "owner/name"
    assert sources.local("") == "" and sources.local("https://a.b/c") == "https://a.b/c"


def test_a_folder_and_a_file_of_problems(there):
    put(there, "own/train.jsonl", "own/deep/er.json", "one.jsonl")
    assert names(found := sources.local(f"{there.url}/own/")) == ["deep/er.json", "train.jsonl"]
    assert Path(found).name == "own"
    assert Path(one := sources.local(f"{there.url}/one.jsonl")).read_text() == "one.jsonl"
    assert Path(one).name == "one.jsonl"
    for absent in ("two.jsonl", "absent/deep"):
        with pytest.raises(InputError, match=rf"{there.url}/{absent}: no such file or folder"):
            sources.local(f"{there.url}/{absent}")


def test_a_file_is_fetched_again_only_if_it_has_changed(there, monkeypatch):
    put(there, "own/a", "own/b", "own/c")
    fetched, real = [], Folder.download

    def download(self, name, path):
        fetched.append(name)
        real(self, name, path)

    monkeypatch.setattr(Folder, "download", download)
    found = Path(sources.local(f"{there.url}/own"))
    there.upload("own/a", b"new")
    there.delete("own/b")
    (found / "c").unlink()
    fetched.clear()
    assert Path(sources.local(f"{there.url}/own")) == found
    assert sorted(fetched) == ["a", "c"] and names(str(found)) == ["a", "c"]
    assert (found / "a").read_text() == "new"


def test_of_a_model_first_the_small_files_and_never_pickles(there):
    put(there, "m/config.json", "m/tokenizer.model", "m/model.safetensors", "m/pytorch_model.bin")
    small = ["config.json", "tokenizer.model"]
    assert names(sources.model(f"{there.url}/m", weights=False)) == small
    found = sources.model(f"{there.url}/m")
    assert names(found) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert names(sources.model(f"{there.url}/m", weights=False)) == names(found)


def test_a_gguf_comes_with_its_other_parts_and_alone_in_a_folder_it_says_what_it_is(there):
    parts = [f"g/m-0000{i}-of-00002.gguf" for i in (1, 2)]
    put(there, *parts, "g/other.gguf")
    found = Path(sources.model(f"{there.url}/{parts[0]}", weights=False))
    assert names(str(found.parent)) == [Path(part).name for part in parts]
    put(there, "h/m.gguf")
    assert names(sources.model(f"{there.url}/h", weights=False)) == ["m.gguf"]


@pytest.mark.parametrize("named", ["", "/checkpoints", "/checkpoints/base", "/checkpoints/base/3"])
def test_of_a_run_the_settings_come_and_checkpoints_stay(there, named):
    put(there, "run/config.json", "run/metrics.jsonl", "run/checkpoints/base/3/state/x")
    found = sources.model(f"{there.url}/run{named}", weights=False)
    assert Path(found).is_dir() and places.url_of(Path(found)) == f"{there.url}/run{named}"
    run = found.removesuffix(named)
    assert names(run) == ["config.json"]
