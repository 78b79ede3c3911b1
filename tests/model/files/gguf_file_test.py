"""Every quantisation that the `gguf` package dequantises, read in blocks of rows."""

import gguf
import numpy as np
import pytest

from score_jax.model.files import gguf_file, stored
from score_jax.problem import InputError

# Random scales may be infinite, or no numbers.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")

ROWS, BLOCKS = 7, 3  # a row is that many blocks of the type


def dequantises(kind: gguf.GGMLQuantizationType) -> bool:
    try:
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


KINDS = [kind for kind in gguf.GGMLQuantizationType if dequantises(kind)]


def write(path, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """A file of one tensor of random bytes, scales included; those bytes."""
    draw = np.random.default_rng(kind.value)
    bytes_per_block = gguf.GGML_QUANT_SIZES[kind][1]
    data = draw.integers(0, 256, (ROWS, BLOCKS * bytes_per_block), dtype=np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return data


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_quantisation_gives_the_values_of_the_package(kind, tmp_path, monkeypatch):
    data = write(tmp_path / "m.gguf", kind)
    expected = gguf.dequantize(data, kind)
    width = BLOCKS * gguf.GGML_QUANT_SIZES[kind][0]
    assert expected.shape == (ROWS, width)
    monkeypatch.setattr(stored, "BLOCK_BYTES", 2 * 4 * width)  # two rows
    _, tensors = gguf_file.read(tmp_path / "m.gguf")
    tensor = tensors["token_embd.weight"]
    assert tensor.shape == (ROWS, width)
    parts = list(stored.blocks(tensor))
    assert [rows.stop - rows.start for rows, _ in parts] == [2, 2, 2, 1]
    found = np.concatenate([values for _, values in parts])
    np.testing.assert_array_equal(found, expected)  # to the bit, as nan is equal to nan here
    assert np.isfinite(found).mean() > 0.5 and len(np.unique(found)) > 2


def test_the_quantisations_are_those_that_models_are_published_in():
    known = {kind.name for kind in KINDS}
    assert {"F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"} <= known
    assert {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"} <= known
    assert len(known) >= 25


@pytest.mark.parametrize(
    "kind",
    [kind for kind in gguf.GGMLQuantizationType if not dequantises(kind)],
    ids=lambda kind: kind.name,
)
def test_what_the_package_cannot_dequantise_is_refused_by_name(kind, tmp_path):
    write(tmp_path / "m.gguf", kind)
    with pytest.raises(
        InputError, match=rf"token_embd.weight .* stored as type {kind.name}, which"
    ):
        gguf_file.read(tmp_path / "m.gguf")


# Split models, and files that are none


def write_part(path, part: int, parts: int, tensors: dict[str, np.ndarray], total: int):
    """One part as llama.cpp's gguf-split writes it: metadata in the first, its number in each."""
    writer = gguf.GGUFWriter(path, "llama")
    if part == 0:
        writer.add_string("general.name", "all of it")
    writer.add_uint16("split.no", part)
    writer.add_uint16("split.count", parts)
    writer.add_int32("split.tensors.count", total)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = [
    {"token_embd.weight": np.arange(12, dtype=np.float32).reshape(4, 3)},
    {"a.weight": np.full((2, 2), 5, np.float32), "b.weight": np.full(2, 6, np.float32)},
    {"c.weight": np.full((2, 2), 7, np.float32)},
]


@pytest.fixture
def split(tmp_path):
    for i, tensors in enumerate(PARTS):
        write_part(tmp_path / f"m-{i + 1:05}-of-00003.gguf", i, 3, tensors, total=4)
    return tmp_path / "m-00001-of-00003.gguf"


def test_the_tensors_of_a_split_model_are_those_of_all_its_parts(split):
    metadata, tensors = gguf_file.read(split)
    assert metadata["general.name"] == "all of it"
    assert tensors.keys() == {"token_embd.weight", "a.weight", "b.weight", "c.weight"}
    for part in PARTS:
        for name, value in part.items():
            np.testing.assert_array_equal(tensors[name].read_rows(0, len(value)), value)


def test_a_missing_part_is_named(split):
    second = split.with_name("m-00002-of-00003.gguf")
    second.unlink()
    with pytest.raises(
        InputError, match=r"4 tensors in all and hold 2. Not in .*: m-00002-of-00003.gguf. Fetch"
    ):
        gguf_file.read(split)
    write_part(second, 1, 3, {}, total=4)
    with pytest.raises(InputError, match=r"hold 2. They are not parts of one model"):
        gguf_file.read(split)


def test_a_missing_part_without_tensors_is_no_loss(tmp_path):
    path = tmp_path / "m-00001-of-00002.gguf"
    write_part(path, 0, 2, PARTS[1], total=2)
    assert gguf_file.read(path)[1].keys() == PARTS[1].keys()


def test_a_part_that_is_cut_off_is_named(split):
    last = split.with_name("m-00003-of-00003.gguf")
    last.write_bytes(last.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"m-00003-of-00003.gguf .* is not a complete GGUF file"):
        gguf_file.read(split)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("adapter", "; an adapter must be merged into it first, by llama-export-lora"),
        ("mmproj", "; this one is its part for images or sound"),
        ("imatrix", "; this one holds statistics for quantising it"),
        ("vocab", ""),
    ],
)
def test_a_gguf_that_is_no_model_says_what_it_is(tmp_path, kind, advice):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=rf"GGUF file of type '{kind}' .*own .gguf file{advice}"):
        gguf_file.read(tmp_path / "m.gguf")


def test_a_git_lfs_pointer_in_place_of_a_file_is_named(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 98\n")
    with pytest.raises(InputError, match=r"m.gguf is not the file itself but a Git LFS pointer"):
        gguf_file.read(path)
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"not a GGUF file: it begins with b'<!DO'"):
        gguf_file.read(path)
