import pytest
from tokenizers import decoders

from score_jax.text.tokenizers import gguf_splits


@pytest.mark.parametrize(
    ("cut", "pieces"),
    [
        ("gpt-2", ["ab", "  ", " 1234", "!", "\n\n"]),
        ("llama-bpe", ["ab", "  ", " ", "123", "4", "!\n\n"]),
        ("dbrx", ["ab", "  ", " ", "123", "4", "!\n\n"]),
        ("qwen2", ["ab", "  ", " ", "1", "2", "3", "4", "!\n\n"]),
        ("tekken", ["ab", "  ", " ", "1", "2", "3", "4", "!\n\n"]),
        ("gpt-4o", ["ab", "  ", " ", "123", "4", "!\n\n"]),
        ("smollm", ["ab", "   ", "1", "2", "3", "4", "!", "\n\n"]),
        ("refact", ["ab", "   ", "1", "2", "3", "4", "!", "\n\n"]),
    ],
)
def test_each_way_of_cutting_cuts_as_its_models_do(cut, pieces):
    steps = gguf_splits.SPLITS[cut].steps()
    words = [piece for piece, _ in steps.pre_tokenize_str("ab   1234!\n\n")]
    assert decoders.ByteLevel().decode(words) == "ab   1234!\n\n"
    assert [decoders.ByteLevel().decode([word]) for word in words] == pieces


@pytest.mark.parametrize(
    ("word", "cut", "pieces"),
    [
        ("camelCase", "tekken", ["camel", "Case"]),
        ("camelCase", "llama-bpe", ["camelCase"]),
        ("I'll", "gpt-4o", ["I'll"]),
        ("I'll", "tekken", ["I", "'ll"]),
        ("a./b", "gpt-4o", ["a", "./", "b"]),
    ],
)
def test_words_are_cut_at_capitals_where_the_models_do(word, cut, pieces):
    steps = gguf_splits.SPLITS[cut].steps()
    assert [piece for piece, _ in steps.pre_tokenize_str(word)] == pieces


def described(model="gpt2", **stated):
    found = {f"tokenizer.ggml.{name}": value for name, value in stated.items()}
    return {"tokenizer.ggml.model": model} | found


@pytest.mark.parametrize(
    ("stated", "bos"),
    [
        (described(pre="llama-bpe", bos_token_id=7), 7),
        (described(pre="tekken", bos_token_id=7), 7),
        (described(pre="qwen2", bos_token_id=7), None),
        (described(pre="smollm", bos_token_id=7), None),
        (described(bos_token_id=7), None),
        (described(pre="llama-bpe", bos_token_id=7, add_bos_token=False), None),
        (described(pre="qwen2", bos_token_id=7, add_bos_token=True), 7),
        (described("llama", bos_token_id=2), 2),
        (described("llama"), 1),
        (described("llama", bos_token_id=2, add_bos_token=False), None),
    ],
)
def test_rows_begin_with_bos_as_llama_cpp_decides(stated, bos):
    assert gguf_splits.begins(stated) == bos


def test_named_tokens_are_those_that_the_file_has():
    stated = described(
        tokens=("a", "<s>", "</s>"), bos_token_id=1, eos_token_id=2, padding_token_id=9
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": None, "pad_token": None}
    assert gguf_splits.named(stated) == names
