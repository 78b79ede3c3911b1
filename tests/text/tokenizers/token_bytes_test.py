"""The bytes of tokens, joined, are those of the decoded text, in every kind of tokenizer."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from score_jax.problem import InputError
from score_jax.text import tokenizer
from tests.text.tokenizers import pieces_test
from tests.text.tokenizers.bytelevel_test import folder as bytelevel_folder  # noqa: F401

TEXTS = ("Problem:\n\n  7 + 8?", "naïve 日本 🎉\t▁x", "<tool><|im_end|></s> a", " b")


def assert_bytes_are_the_texts(loaded: tokenizer.Tokenizer, texts, special: str = "") -> None:
    found = loaded.token_bytes()
    assert len(found) == loaded.vocab_size
    for text in texts:
        ids = loaded.encode(text, continued=True)
        joined = b"".join(found[i] for i in ids)
        assert joined == text.encode(), text
        assert joined.decode() in (loaded.decode(ids), " " + loaded.decode(ids))
    for name in loaded.special:
        assert found[loaded.special[name]] == b"", name
    assert special in loaded.special or not special


def test_of_byte_level_bpe(bytelevel_folder):  # noqa: F811
    loaded = tokenizer.load(str(bytelevel_folder))
    assert_bytes_are_the_texts(loaded, TEXTS, "<|im_end|>")
    assert b"<tool>" in loaded.token_bytes(), "an added token that is not special reads as written"


def test_of_smollm2(smollm2, texts):
    assert_bytes_are_the_texts(smollm2, texts, "<|im_end|>")


@pytest.mark.parametrize("prefix", [True, False])
def test_of_sentencepiece(tmp_path, prefix):
    marks = ["<start_of_turn>", "\n\n", "▁▁"]
    settings = {} if prefix else {"add_dummy_prefix": False, "user_defined_symbols": marks}
    pieces_test.train(tmp_path / "tokenizer.model", **settings)
    loaded = tokenizer.load(str(tmp_path))
    texts = [text.replace("▁", "") for text in TEXTS]  # SentencePiece reads it as a blank
    assert_bytes_are_the_texts(loaded, texts, "</s>")


def test_of_pieces_in_a_tokenizer_json(tmp_path):
    """As Llama 2's and Gemma's are published: "▁" for blanks, and pieces for lone bytes."""
    lone = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {text: i for i, text in enumerate(["</s>", *lone, "▁", "a", "b", "▁a", "<0x1>"])}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=[("▁", "a")], byte_fallback=True)
    )
    backend.add_special_tokens(["</s>"])
    backend.normalizer = normalizers.Replace(" ", "▁")
    blank = decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([blank, decoders.ByteFallback(), decoders.Fuse()])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    loaded = tokenizer.load(str(tmp_path))
    assert_bytes_are_the_texts(loaded, (" a\nb🎉", "  ab"), "</s>")
    assert loaded.token_bytes()[vocabulary["<0x1>"]] == b"<0x1>", "not the name of a byte"


def test_of_characters():
    assert_bytes_are_the_texts(tokenizer.load("characters"), ("12+3=?",))


def test_a_decoder_that_joins_tokens_by_words_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "</s>": 2}))
    backend.add_special_tokens(["</s>"])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    loaded = tokenizer.load(str(tmp_path))
    with pytest.raises(InputError, match="of the kind WordPiece, and stop sequences need"):
        loaded.token_bytes()
