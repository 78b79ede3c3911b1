"""Files made of the vocabulary in a GGUF encode as our own tokenizer of it does."""

import json

import pytest
from sentencepiece import sentencepiece_model_pb2 as proto

from score_jax.text import tokenizer
from score_jax.text.tokenizers import gguf_metadata, gguf_tokenizer
from tests.text import templates_test
from tests.text.tokenizers import pieces_test
from tests.text.tokenizers.pieces_test import (
    gemma,  # noqa: F401 (fixtures)
    llama,  # noqa: F401 (fixtures)
)

RUNS = [letter * n for letter in "a= \n\t1▁é日🎉" for n in (1, 2, 3, 7, 32)]


def assert_same(ours, folder, texts):
    """Read back by us, and read by transformers."""
    transformers = pytest.importorskip("transformers")
    back = tokenizer.load(str(folder))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    begin = [] if ours.bos_id is None else [ours.bos_id]
    for text in [*texts, *RUNS]:
        ids = ours.encode(text)
        assert back.encode(text) == ids, text
        assert theirs.decode(ids) == ours.decode(ids)
        if not any(mark in text for mark in theirs.all_special_tokens):
            assert theirs.encode(text) == begin + ids, text
        assert back.encode(text, continued=True) == ours.encode(text, continued=True)
    for field in ("end_ids", "bos_id", "pad_id", "vocab_size", "chat_template"):
        assert getattr(back, field) == getattr(ours, field), field
    assert ours.special.items() <= back.special.items()
    assert theirs.bos_token_id in (ours.bos_id, None) or ours.bos_id is None
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.end_ids[0], ours.pad_id)
    return theirs


def test_files_of_smollm2_encode_and_chat_as_the_gguf(smollm2_path, smollm2, tmp_path, texts):
    named = gguf_tokenizer.write(smollm2_path, tmp_path)
    assert named == ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    theirs = assert_same(smollm2, tmp_path, texts)
    ours = templates_test.templates.make(
        *("auto", smollm2),
        system="",
        prompt_format="{problem}",
        instruction=templates_test.INSTRUCTION,
    )
    templates_test.assert_same_conversation(ours, theirs, "")


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_files_of_pieces_with_scores_encode_as_the_gguf(kind, request, tmp_path, texts):
    folder, _ = request.getfixturevalue(kind)
    source = pieces_test.write_gguf(tmp_path / "m.gguf", folder / "tokenizer.model")
    named = gguf_tokenizer.write(source, tmp_path)
    assert named == ["tokenizer.json", "tokenizer_config.json"]
    assert_same(tokenizer.load(str(source)), tmp_path, texts)


def test_scores_decide_and_not_the_order_of_the_pieces(llama, tmp_path, texts):  # noqa: F811
    folder, _ = llama
    model = proto.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    normal = [i for i, piece in enumerate(model.pieces) if piece.type == piece.NORMAL]
    turned = [model.pieces[i] for i in reversed(normal)]
    kept = [piece for piece in model.pieces if piece.type != piece.NORMAL]
    del model.pieces[:]
    model.pieces.extend([*kept, *turned])
    (tmp_path / "turned.model").write_bytes(model.SerializeToString())
    source = pieces_test.write_gguf(tmp_path / "m.gguf", tmp_path / "turned.model")
    (tmp_path / "out").mkdir()
    assert gguf_tokenizer.write(source, tmp_path / "out")
    assert_same(tokenizer.load(str(source)), tmp_path / "out", texts)


def test_files_are_left_out_where_they_would_encode_otherwise(llama, tmp_path, monkeypatch):  # noqa: F811
    """SentencePiece can take blanks away, which is not written into tokenizer.json."""
    source = pieces_test.write_gguf(tmp_path / "m.gguf", llama[0] / "tokenizer.model")
    stated = gguf_metadata.read(source) | {"tokenizer.ggml.remove_extra_whitespaces": True}
    monkeypatch.setattr(gguf_metadata, "read", lambda path: stated)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert gguf_tokenizer.write(source, tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_settings_beside_name_what_transformers_looks_for(smollm2_path, tmp_path):
    gguf_tokenizer.write(smollm2_path, tmp_path)
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert described == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
    }
