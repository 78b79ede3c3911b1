"""Local folders that stand for folders in a bucket, and checkpoints there."""

from pathlib import Path

import pytest

from score_jax.buckets import places
from score_jax.buckets.client import Folder
from tests.emulator import BUCKET


@pytest.fixture
def place(tmp_path, store) -> Path:
    return places.stands_for(tmp_path / "run", f"gs://{BUCKET}/{tmp_path.name}/run/")


def put(folder: Path, *names: str) -> None:
    """Files that hold their names, on disk or in the bucket."""
    for name in names:
        if url := places.url_of(folder):
            Folder(url).upload(name, name.encode())
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)


def names(folder: Path) -> list[str]:
    if url := places.url_of(folder):
        return sorted(Folder(url).files())
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_paths_and_urls(place, monkeypatch):
    url = f"gs://{BUCKET}/{place.parent.name}/run"
    assert places.url_of(place) == url and places.url_of(place.parent) == ""
    assert places.url_of(place / "a" / "b") == f"{url}/a/b"
    assert str(places.at(place / "a")) == f"{url}/a"
    assert (
        places.shown(f"see {place}/report, {place.parent}") == f"see {url}/report, {place.parent}"
    )
    monkeypatch.chdir(place.parent)
    assert places.url_of(Path("run/a")) == f"{url}/a"
    assert places.at(Path("other")) == place.parent / "other"


def test_a_checkpoint_in_a_bucket_is_there_once_it_has_its_marker(place):
    parts = ("stage1/4/state/x", "stage1/4/state/commit_success.txt")
    put(place / "checkpoints", *parts, "stage1/2/commit_success.txt")
    put(place / "checkpoints", "stage1/3.damaged/state/x", "stage1/1/_CHECKPOINT_METADATA")
    assert places.checkpoints_in(place / "checkpoints") == [place / "checkpoints" / "stage1" / "2"]


@pytest.mark.parametrize("there", ["bucket", "disk"])
@pytest.mark.parametrize("here", ["bucket", "disk"])
def test_a_checkpoint_is_copied_and_its_marker_comes_last(
    place, tmp_path, monkeypatch, here, there
):
    files = ("commit_success.txt", "state/commit_success.txt", "state/x", "z")
    source = (place if here == "bucket" else tmp_path) / "base" / "3"
    target = (place if there == "bucket" else tmp_path) / "copied" / "3"
    put(source, *(files if here == "bucket" else files[2:]))
    written = []
    for name in ("upload", "copy", "download"):
        real = getattr(Folder, name)

        def noted(self, *arguments, real=real, **options):
            written.append(arguments[0])
            return real(self, *arguments, **options)

        monkeypatch.setattr(Folder, name, noted)
    places.copy(source, target)
    assert names(target) == list(files if here == "bucket" or there == "bucket" else files[2:])
    assert (here, there) == ("disk", "disk") or written[-1] == "commit_success.txt"


@pytest.mark.parametrize("where", ["bucket", "disk"])
def test_a_checkpoint_is_set_aside(place, tmp_path, where):
    folder = (place if where == "bucket" else tmp_path) / "checkpoints"
    put(folder, "base/3/commit_success.txt", "base/3/state/x", "base/3.damaged/old")
    places.set_aside(folder / "base" / "3", folder / "base" / "3.damaged")
    assert names(folder) == ["base/3.damaged/commit_success.txt", "base/3.damaged/state/x"]
