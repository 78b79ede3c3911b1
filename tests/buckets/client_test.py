"""Files in a bucket, against an emulator; and a store that is out of reach."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_jax.buckets import client
from score_jax.buckets.client import Changed, Folder
from score_jax.problem import InputError, MachineGone
from tests.emulator import BUCKET, Emulator, binary, environment

ROOT = Path(__file__).parents[2]


def test_files_are_written_listed_read_copied_and_deleted(tmp_path, store):
    folder, other = Folder(f"gs://{BUCKET}/a/run/"), Folder(f"gs://{BUCKET}/a/copy")
    assert folder.url == f"gs://{BUCKET}/a/run" and folder.files() == {}
    (tmp_path / "file").write_bytes(b"\0" * 2**20)
    first = folder.upload("x/large", tmp_path / "file")
    second = folder.upload("small", b"text")
    assert folder.files() == {"x/large": first, "small": second}
    assert folder.files("x/") == {"x/large": first}
    assert folder.entries() == ({"small": second}, ["x"])
    assert folder.entries("x/") == ({"x/large": first}, [])
    assert folder.read("small") == (b"text", second) and folder.read("absent") is None
    folder.download("x/large", tmp_path / "y" / "again")
    assert (tmp_path / "y" / "again").read_bytes() == b"\0" * 2**20
    folder.copy("small", other, "smaller")
    assert other.read("smaller")[0] == b"text"
    folder.delete("small")
    folder.delete("small")
    assert list(folder.files()) == ["x/large"]


def test_a_file_is_replaced_only_as_it_was_last_seen(store):
    folder = Folder(f"gs://{BUCKET}/b")
    first = folder.upload("lock", b"one", 0)
    with pytest.raises(Changed, match=f"gs://{BUCKET}/b/lock was changed by another process"):
        folder.upload("lock", b"two", 0)
    second = folder.upload("lock", b"two", first)
    with pytest.raises(Changed):
        folder.upload("lock", b"three", first)
    assert folder.read("lock") == (b"two", second)
    # As after an answer that got lost: what was uploaded is there.
    assert folder.upload("lock", b"two", first) == second


def test_a_bucket_that_is_not_there_is_named(store):
    with pytest.raises(InputError, match="gs://nowhere/run: not found"):
        Folder("gs://nowhere/run").files()
    with pytest.raises(InputError, match="gs://nowhere/run: not found"):
        Folder("gs://nowhere/run").read("config.json")


def test_an_outage_is_ridden_out(capsys, monkeypatch):
    monkeypatch.setattr(client, "_SAY_SEC", 0.5)
    with Emulator() as store:
        folder = Folder(f"gs://{BUCKET}")
        assert list(folder.files()) == ["first"]  # the packages are imported, which takes seconds
        store.stop()
        said = ""

        def come_back():
            nonlocal said
            while "cannot be reached" not in said:
                time.sleep(0.1)
                said += capsys.readouterr().err
            store.start()

        back = threading.Thread(target=come_back, daemon=True)
        back.start()
        assert list(folder.files()) == ["first"]
        back.join()
    said += capsys.readouterr().err
    assert said.count("trying again for 10 minutes") == 1


@pytest.mark.parametrize("patience_sec", [1.0, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_store_that_stays_away_is_an_end(monkeypatch, patience_sec):
    """The slow one waits for the true ten minutes."""
    binary()  # else the packages of the extra are not there either
    for name, value in environment(("127.0.0.1", 9)).items():
        monkeypatch.setenv(name, value)
    began, folder = time.monotonic(), Folder("gs://bucket/run", patience_sec)
    with pytest.raises(
        MachineGone, match=r"gs://bucket/run could not be reached .*Errno 111. Connection refused"
    ):
        folder.upload("x", b"y")
    took = time.monotonic() - began
    wanted = client.LOST_SEC if patience_sec is None else patience_sec
    assert wanted - 10 < took < wanted + 30


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("runs/first", False),
        ("https://example.org/data", False),
        ("gs://bucket/run", True),
        ("gs://bucket", True),
    ],
)
def test_names_in_buckets_are_told_from_others(name, wanted):
    assert client.is_url(name) == wanted


def test_other_stores_and_names_of_nothing_are_refused():
    with pytest.raises(InputError, match="s3://bucket/run: of buckets only gs:// is known"):
        client.is_url("s3://bucket/run")
    for name in ("gs://", "gs:///run"):
        with pytest.raises(InputError, match="names no folder"):
            client.is_url(name)


def test_orbax_reads_buckets_in_one_way_where_tensorflow_is_installed_too(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise RuntimeError('imported')")
    program = (
        "from score_jax.model.files import saved_params\n"
        "from etils import epath\nfrom etils.epath import backend, gpath\n"
        "assert epath.Path('gs://b/x')._backend is backend.fsspec_backend"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment["EPATH_USE_TF"] = "1"  # the choice of who sets it
    assert subprocess.run(command, env=environment, capture_output=True).returncode


def test_packages_that_are_missing_are_named_with_the_command(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        client.importlib.util, "find_spec", lambda name: None if name == "gcsfs" else real(name)
    )
    client.check("runs/first")
    with pytest.raises(InputError, match=r"pip install 'score-jax\[gcs\]'"):
        Folder("gs://bucket/run")
