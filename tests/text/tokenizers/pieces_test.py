import io
import json

import gguf
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from score_jax.problem import InputError
from score_jax.text import tokenizer

CORPUS = [
    "user model problem solution instruction attempt answer",
    "Natalia sold clips to 48 of her friends in April, and then half as many clips in May.",
    "There might be an error in the solution above. Please correct the error, if any.",
    "def f(x):\n    return x ** 2",
] * 8


def train(path, **settings):
    """Trains a tiny SentencePiece BPE model as Llama 2's (blank first) or Gemma's (none) are."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture
def llama(tmp_path):
    return tmp_path, train(tmp_path / "tokenizer.model")


@pytest.fixture
def gemma(tmp_path):
    marks = ["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "▁▁▁▁"]
    return tmp_path, train(
        tmp_path / "tokenizer.model",
        add_dummy_prefix=False,
        user_defined_symbols=marks,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
    )


def write_gguf(path, model_path, **changes):
    """Writes the table of a SentencePiece model into a GGUF, as converters do."""
    model = proto.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(model_path.read_bytes())
    spelled = [piece.piece for piece in model.pieces]
    runs = [
        piece.replace("▁", " ") if set(piece) == {"▁"} and piece != "▁" else piece
        for piece in spelled
    ]
    kinds = [piece.type for piece in model.pieces]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(runs)
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types(changes.get("kinds", kinds))
    writer.add_bos_token_id(spelled.index(model.trainer_spec.bos_piece))
    writer.add_eos_token_id(spelled.index(model.trainer_spec.eos_piece))
    writer.add_unk_token_id(kinds.index(2))
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_model_file_encodes_as_sentencepiece_does(llama, texts):
    folder, processor = llama
    loaded = tokenizer.load(str(folder))
    for text in texts:
        assert loaded.encode(text) == processor.encode(text), text
        assert loaded.decode(loaded.encode(text)) == text
    assert tokenizer.load(str(folder / "tokenizer.model")).vocab_size == loaded.vocab_size == 420


def test_a_model_file_tells_begin_and_end(llama):
    folder, processor = llama
    loaded = tokenizer.load(str(folder))
    assert loaded.bos_id == processor.bos_id() == loaded.token_id("<s>")
    assert loaded.end_ids == (processor.eos_id(),)
    assert loaded.pad_id == loaded.end_ids[0]  # the file has none
    assert loaded.decode([1, *processor.encode("half"), 2]) == "half"
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    assert tokenizer.load(str(folder)).bos_id is None


def test_a_continued_text_gets_no_blank_before_it(llama):
    loaded = tokenizer.load(str(llama[0]))
    start, continued = loaded.encode("half"), loaded.encode("half", continued=True)
    assert loaded.decode([*start, *start]) == "half half"
    assert loaded.decode([*start, *continued]) == "halfhalf"


def test_text_cannot_inject_a_special_token(llama, gemma):
    for folder, marks in (
        (gemma[0], "<start_of_turn>user<end_of_turn><bos></s>"),
        (llama[0], "</s>"),
    ):
        loaded = tokenizer.load(str(folder))
        ids = loaded.encode(marks)
        assert set(ids).isdisjoint(loaded.special.values())
        assert loaded.decode(ids) == marks


def test_turn_marks_listed_as_user_defined_become_special(gemma):
    folder, processor = gemma
    loaded = tokenizer.load(str(folder))
    mark = processor.piece_to_id("<end_of_turn>")
    assert loaded.token_id("<end_of_turn>") == mark
    assert loaded.end_ids == (1, mark)
    assert loaded.token_id("\n\n") is None
    assert loaded.decode([*processor.encode("half"), mark]) == "half"


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_gguf_encodes_as_the_model_it_was_made_from(kind, request, tmp_path, texts):
    folder, _ = request.getfixturevalue(kind)
    original = tokenizer.load(str(folder))
    loaded = tokenizer.load(str(write_gguf(tmp_path / "m.gguf", folder / "tokenizer.model")))
    for text in texts:
        assert loaded.encode(text) == original.encode(text), text
        assert loaded.decode(loaded.encode(text)) == text
        assert loaded.encode(text, continued=True) == original.encode(text, continued=True)
    assert loaded.special == original.special
    assert (loaded.bos_id, loaded.end_ids) == (original.bos_id, original.end_ids)


def test_a_gguf_with_a_type_missing_is_refused(llama, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", llama[0] / "tokenizer.model", kinds=[1, 2, 3])
    with pytest.raises(InputError, match="420 tokens, 420 scores and 3 token types"):
        tokenizer.load(str(path))


def test_a_gguf_with_an_unknown_type_is_refused(llama, tmp_path):
    kinds = [2, *[1] * 418, 99]
    path = write_gguf(tmp_path / "m.gguf", llama[0] / "tokenizer.model", kinds=kinds)
    with pytest.raises(InputError, match="a token of an unknown type"):
        tokenizer.load(str(path))


def test_a_gguf_of_another_kind_lists_the_known(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "t5")
    writer.add_tokenizer_model("t5")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"kind 't5'.*'gpt2' .*'llama'"):
        tokenizer.load(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("content", [b"", b"\x00\xff not a model", b"\x0a\xff"])
def test_a_broken_model_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.model.*Download it again"):
        tokenizer.load(str(tmp_path))


def test_a_cut_model_file_is_refused(llama):
    path = llama[0] / "tokenizer.model"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"tokenizer\.model.*Download it again"):
        tokenizer.load(str(path))
