"""A work directory in a bucket and its local folder, against an emulator."""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from score_jax.buckets import places
from score_jax.buckets.client import Changed, Folder
from score_jax.problem import InputError
from score_jax.workdir import lock, spool
from tests.emulator import BUCKET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(tmp_path, store) -> str:
    return f"gs://{BUCKET}/{tmp_path.name}/run"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_local_work_directory_is_its_own_folder(tmp_path):
    with spool.opened(str(tmp_path)) as folder:
        assert folder == tmp_path
        spool.written(folder)
        spool.uploaded(folder)
        (folder / "x").write_text("y")
        assert spool.read(folder / "x") == b"y"


def test_an_archive_of_programs_writes_nothing_else(tmp_path):
    made, folder = tmp_path / "archive.tar", tmp_path / "run"
    (tmp_path / "file").write_text("x")
    folder.mkdir()
    with tarfile.open(made, "w") as packed:
        for name in ("compile_cache/a", "compile_cache/deep/b", "compile_cache/../c", "d", "../e"):
            packed.add(tmp_path / "file", name)
        (tmp_path / "link").symlink_to("/")
        packed.add(tmp_path / "link", "compile_cache/link")
    with tarfile.open(made) as packed:
        spool._unpack(packed, folder)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {name for name in left if name.startswith("run/")} == {
        f"run/compile_cache{name}" for name in ("", "/a", "/deep", "/deep/b")
    }
    assert left - {name for name in left if name.startswith("run/")} == {
        *("run", "file", "link", "archive.tar")
    }


@pytest.mark.parametrize("whose", ["of others", "open to others", "a link"])
def test_a_folder_of_another_user_is_not_worked_in(tmp_path, monkeypatch, whose):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    taken = tmp_path / f"score_jax-{os.getuid()}"
    if whose == "a link":
        taken.symlink_to(tmp_path)
    else:
        taken.mkdir(mode=0o700)
    if whose == "open to others":
        taken.chmod(0o777)
    if whose == "of others":
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        taken.rename(tmp_path / f"score_jax-{other}")
    with pytest.raises(InputError, match="is not a folder that only you can write"):
        spool._local_folder().__enter__()


def test_files_come_and_go_with_the_bucket_and_only_they(url):
    there = Folder(url)
    there.upload("config.json", b"1")
    there.upload("evaluations/base.json", b"2")
    there.upload("checkpoints/base/1/state/x", b"3")
    there.upload("own.txt", b"4")
    with spool.opened(url) as folder:
        assert folder.name == "run" and places.url_of(folder / "report") == f"{url}/report"
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert found == {"config.json", "evaluations/base.json"}
        write(folder, config_json="changed", report__summary_json="5")
        spool.uploaded(folder)  # nothing is written there without the lock
        assert there.read("config.json")[0] == b"1"
        (folder / "config.json").write_text("1")
        with lock.held(folder):
            write(folder, config_json="changed", transcripts__base="6", compile_cache__x="7")
            write(folder, report__summary_json="5", **{".half": "8"})
            (folder / "evaluations" / "base.json").unlink()
            spool.uploaded(folder)
            assert sorted(there.files()) == sorted(
                [
                    *("checkpoints/base/1/state/x", "compile_cache.tar", "config.json"),
                    *("lock.json", "own.txt", "report/summary.json", "transcripts/base"),
                ]
            )
            assert there.read("config.json")[0] == b"changed"
            generations = there.files()
            spool.uploaded(folder)
            assert {**there.files(), "lock.json": 0} == {**generations, "lock.json": 0}
        assert "lock.json" not in there.files()
    assert not folder.exists()
    with spool.opened(url) as folder:
        assert (folder / "compile_cache" / "x").read_text() == "7"
        assert (folder / "config.json").read_text() == "changed"


def test_what_another_run_left_meanwhile_comes_with_the_lock(url):
    there = Folder(url)
    there.upload("metrics.jsonl", b"1")
    with spool.opened(url) as folder:
        there.upload("metrics.jsonl", b"12")
        with lock.held(folder):
            assert (folder / "metrics.jsonl").read_text() == "12"


def test_a_sign_of_completeness_comes_after_what_is_complete_and_goes_before(url, monkeypatch):
    done = []
    with spool.opened(url) as folder, lock.held(folder):
        for name in ("upload", "delete"):
            real = getattr(Folder, name)

            def noted(self, file, *arguments, real=real, name=name, **options):
                done.append((name, file))
                return real(self, file, *arguments, **options)

            monkeypatch.setattr(Folder, name, noted)
        write(folder, report__summary_json="", config_json="", evaluations__base_json="")
        write(folder, transcripts__base="")
        spool.uploaded(folder)
        order = ["transcripts/base", "evaluations/base.json", "config.json", "report/summary.json"]
        assert [file for _, file in done] == order
        for name in order:
            (folder / name).unlink()
        spool.uploaded(folder)
        assert [file for _, file in done[4:]] == order[::-1]
        assert {name for name, _ in done[4:]} == {"delete"}


def test_a_file_that_another_run_wrote_ends_this_one(url):
    with pytest.raises(Changed, match="another run is at work"):  # noqa: SIM117
        with spool.opened(url) as folder, lock.held(folder):
            write(folder, config_json="ours")
            spool.uploaded(folder)
            Folder(url).upload("config.json", b"theirs")
            write(folder, config_json="ours again")
            spool.uploaded(folder)
    assert Folder(url).read("config.json")[0] == b"theirs"


def test_uploads_in_between_keep_their_distance(url, monkeypatch):
    there = Folder(url)
    with spool.opened(url) as folder, lock.held(folder):
        write(folder, config_json="1")
        spool.written(folder / "config.json")
        assert there.read("config.json")[0] == b"1"
        write(folder, config_json="12")
        spool.written(folder / "config.json")
        assert there.read("config.json")[0] == b"1"
        now = time.monotonic()
        monkeypatch.setattr(spool.time, "monotonic", lambda: now + spool.EVERY_SEC)
        spool.written(folder / "config.json")
        assert there.read("config.json")[0] == b"12"


def test_folders_of_killed_processes_go_at_the_next_start(url, tmp_path):
    program = (
        "import os, sys\nfrom score_jax.workdir import spool\n"
        "with spool.opened(sys.argv[1]) as folder:\n    print(folder, flush=True)\n    input()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    folders = [Path(one.stdout.readline().strip()) for one in (first, second)]
    assert all(folder.is_dir() for folder in folders)
    first.kill()
    first.wait()
    done = subprocess.run(
        [sys.executable, "-c", program, url], cwd=ROOT, env=environment, input="\n", text=True
    )
    assert done.returncode == 0
    assert [folder.is_dir() for folder in folders] == [False, True]
    second.communicate("\n")
    assert second.returncode == 0 and not folders[1].exists()
