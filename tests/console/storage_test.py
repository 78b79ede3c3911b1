"""Storage that fails is told from everything else, however libraries wrap the error."""

import errno
import os
from pathlib import Path

import pytest

from score_jax.console import storage
from score_jax.problem import MachineGone


def wrapped(error: Exception, text: str = "saving failed") -> Exception:
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError(text) from cause
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space"),
        OSError(errno.EDQUOT, "quota"),
        ValueError(f"Error writing d/1: [OS error 28: ENOSPC {os.strerror(errno.ENOSPC)}]"),
    ],
)
def test_a_full_disk_is_named_with_its_folder_and_bytes(error, tmp_path):
    for found in (error, wrapped(error)):
        lost = storage.lost(found, tmp_path)
        assert isinstance(lost, MachineGone)
        assert f"no space is left in {tmp_path} (" in str(lost) and "bytes are free)" in str(lost)


def test_a_limit_on_the_size_of_files_is_named(tmp_path):
    code = f"[os_error_code='{errno.EFBIG}']"
    text = ValueError(f"Failed to write 975 bytes to file 7: {os.strerror(errno.EFBIG)} {code}")
    for error in (OSError(errno.EFBIG, "x", str(tmp_path / "metrics.jsonl")), wrapped(text)):
        lost = storage.lost(error, tmp_path)
        assert isinstance(lost, MachineGone)
        assert f"a file in {tmp_path} may not grow" in str(lost) and "ulimit -f" in str(lost)


def test_another_folder_than_the_work_directory_is_named(tmp_path):
    elsewhere = tmp_path / "export"
    elsewhere.mkdir()
    error = OSError(errno.ENOSPC, "no space", str(elsewhere / "model.safetensors"))
    assert f"left in {elsewhere} (" in str(storage.lost(error, tmp_path / "run"))
    inside = OSError(errno.ENOSPC, "no space", str(tmp_path / "run" / "deep" / "file"))
    assert f"left in {tmp_path / 'run'}" in str(storage.lost(inside, tmp_path / "run"))


def test_storage_out_of_reach_and_a_folder_that_moved_are_told(tmp_path):
    lost = storage.lost(OSError(errno.ENOTCONN, "x", str(tmp_path / "f")), tmp_path)
    assert "See that it is mounted" in str(lost)
    missing = FileNotFoundError(errno.ENOENT, "x", str(tmp_path / "gone" / "metrics.jsonl"))
    assert "no longer there" in str(storage.lost(missing, tmp_path / "gone"))
    assert storage.lost(missing, tmp_path) is None


def test_a_file_that_is_missing_elsewhere_is_no_lost_work_directory(tmp_path, monkeypatch):
    other = FileNotFoundError(errno.ENOENT, "x", str(tmp_path / "other" / "metrics.jsonl"))
    assert storage.lost(other, tmp_path / "new") is None
    assert storage.lost(FileNotFoundError(f"no {tmp_path}/other"), tmp_path / "new") is None
    # Libraries name it in the text, and by its whole path.
    monkeypatch.chdir(tmp_path)
    told = FileNotFoundError(f"no such folder: {tmp_path}/new/checkpoints")
    assert "no longer there" in str(storage.lost(told, Path("new")))


def test_the_machines_other_lacks_keep_their_words_and_bugs_stay_bugs():
    gone = MachineGone("no processes are left.")
    assert storage.lost(wrapped(gone), Path("/")) is gone
    for error in (ValueError("RESOURCE_EXHAUSTED: Out of memory"), KeyError("x"), OSError("x")):
        assert storage.lost(error, Path("/")) is None
