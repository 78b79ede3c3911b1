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
