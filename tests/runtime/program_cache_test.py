"""Files of compiled programs are whole, absent or replaced."""

import warnings

import jax
import jax.numpy as jnp
import pytest

from score_jax.runtime import compiles
from score_jax.runtime.compiles import Watch
from score_jax.runtime.program_cache import WholeFiles


@pytest.fixture
def folder(tmp_path):
    compiles.keep_in(tmp_path / "cache")
    yield tmp_path / "cache"
    compiles.keep_in(None)


def compiled() -> int:
    """How many programs a new process would compile."""
    jax.clear_caches()
    with Watch() as watch, warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda x: jnp.cos(x) * 3)(jnp.ones(3))
    return watch.misses


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_half_a_file_is_replaced_without_a_word(folder, share):
    assert compiled() > 0 and compiled() == 0
    files = list(folder.iterdir())
    for path in files:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert compiled() > 0 and compiled() == 0
    assert set(folder.iterdir()) == set(files)


def test_a_program_that_is_being_written_is_not_seen(folder, monkeypatch):
    folder.mkdir()
    seen = []
    real = type(folder).write_bytes

    def write_bytes(path, data):
        count = real(path, data)
        seen.append([p.name for p in folder.iterdir() if not p.name.startswith(".")])
        return count

    monkeypatch.setattr(type(folder), "write_bytes", write_bytes)
    WholeFiles(str(folder), max_size=-1).put("key", b"program")
    assert seen == [[]] and [p.name for p in folder.iterdir()] == ["key-cache"]


def test_without_room_or_a_folder_programs_are_compiled_and_nothing_is_left(folder, monkeypatch):
    folder.mkdir()

    def full(path, data):
        path.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(folder), "write_bytes", full)
        assert compiled() > 0 and not list(folder.iterdir())
    (folder.parent / "file").touch()
    compiles.keep_in(folder.parent / "file" / "cache")
    assert compiled() > 0


def test_a_folder_that_the_environment_names_is_shared_by_all_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "shared"))
    try:
        compiles.keep_in(tmp_path / "one")
        assert compiled() > 0
        compiles.keep_in(tmp_path / "two")
        assert compiled() == 0
        assert [p.name for p in tmp_path.iterdir()] == ["shared"]
        compiles.keep_in(None)
        assert compiled() > 0
    finally:
        compiles.keep_in(None)
