"""Which files a path means, by names and first bytes alone."""

import pytest

from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_files


@pytest.fixture
def folder(tmp_path):
    def holding(*names: str):
        for name in names:
            (tmp_path / name).write_bytes(b"GGUF and more")
        return tmp_path

    return holding


@pytest.mark.parametrize("name", ["m.gguf", "M.GGUF", "m.Gguf", "0a1b2c", "m.bin"])
def test_a_file_counts_by_its_suffix_in_any_case_or_by_its_first_bytes(folder, name):
    path = folder(name) / name
    assert gguf_files.find(path) == path


@pytest.mark.parametrize("content", [b"", b"GGU", b"text that mentions GGUF"])
def test_another_file_is_none_and_one_named_as_such_is_left_to_its_reader(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    assert gguf_files.find(tmp_path / "notes.txt") is None
    for name in ("m.gguf", "M.GGUF"):
        (tmp_path / name).write_bytes(content)
        assert gguf_files.find(tmp_path / name) == tmp_path / name
    assert gguf_files.find(tmp_path / "gone.gguf") is None


def test_a_folder_means_the_one_model_in_it(folder):
    path = folder("m.gguf", "mmproj-m-f16.gguf", "README.md")
    assert gguf_files.find(path) == path / "m.gguf"
    folder("m-Q4_0.GGUF")
    with pytest.raises(InputError, match=r"2 GGUF models: m-Q4_0.GGUF, m.gguf. Name one of"):
        gguf_files.find(path)


def test_a_folder_without_one_means_none(folder):
    assert gguf_files.find(folder("mmproj-m.gguf", "0a1b2c")) is None


@pytest.mark.parametrize("suffix", ["gguf", "GGUF"])
def test_a_part_and_a_folder_of_parts_mean_the_first_one(folder, suffix):
    names = [f"m-{i:05}-of-00003.{suffix}" for i in (1, 2, 3)]
    path = folder(*names)
    assert gguf_files.find(path) == path / names[0]
    for name in names:
        assert gguf_files.find(path / name) == path / names[0]
    assert gguf_files.parts(path / names[0], 3) == [path / name for name in names]
    (path / names[0]).unlink()
    for named in (path / names[2], path):
        with pytest.raises(InputError, match=rf"its first part {names[0]}, .* is not in {path}"):
            gguf_files.find(named)


@pytest.mark.parametrize("name", ["m.gguf", "0a1b2c", "m-00001-of-00002.gguf", "m-1-of-3.gguf"])
def test_parts_whose_names_do_not_say_where_the_others_are_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"one of 3 parts.*model-00001-of-00003.gguf, or join"):
        gguf_files.parts(tmp_path / name, 3)
    assert gguf_files.parts(tmp_path / name, 1) == [tmp_path / name]
