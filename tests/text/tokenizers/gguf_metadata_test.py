import gguf
import pytest

from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_metadata

TOKENS = ["a", "Ġb", "日本", ""]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("n", 7)
    writer.add_float64("x", 0.25)
    writer.add_bool("yes", True)
    writer.add_int64("negative", -5)
    writer.add_string("text", "é\n")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0, -1.0, -2.0, 0.5])
    writer.add_token_types([1, 1, 3, 6])
    writer.add_string("last", "the end")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_values_of_every_kind_are_read(path):
    metadata = gguf_metadata.read(path)
    assert metadata == {
        "general.architecture": "llama",
        "n": 7,
        "x": 0.25,
        "yes": True,
        "negative": -5,
        "text": "é\n",
        "tokenizer.ggml.tokens": tuple(TOKENS),
        "tokenizer.ggml.scores": (0.0, -1.0, -2.0, 0.5),
        "tokenizer.ggml.token_type": (1, 1, 3, 6),
        "last": "the end",
    }


def test_a_file_cut_anywhere_in_its_metadata_is_refused(path):
    whole = path.read_bytes()
    end = whole.rindex(b"the end") + len(b"the end")
    for size in [*range(24, end, 7), end - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=rf"\({size} bytes\) is not a complete GGUF file: its directory ends"
        ):
            gguf_metadata.read(path)
    path.write_bytes(whole[:end])
    assert gguf_metadata.read(path)["n"] == 7


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" + bytes(40)])
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is not a (complete )?GGUF file"):
        gguf_metadata.read(path)


def test_an_old_version_is_refused(path):
    path.write_bytes(b"GGUF" + (1).to_bytes(4, "little") + path.read_bytes()[8:])
    with pytest.raises(InputError, match="GGUF version 1; only little-endian versions 2 and 3"):
        gguf_metadata.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        gguf_metadata.read(tmp_path / "none.gguf")
