import pickle

import numpy as np
import pytest

from score_jax.problem import InputError
from score_jax.text import tokenizer
from tests.text.tokenizers import pieces_test


def test_characters_are_sixteen_and_come_back_from_their_ids():
    characters = tokenizer.load("characters")
    text = "    7+8+5=9:50.?0:50."
    ids = characters.encode(text)
    assert characters.vocab_size == 16
    assert ids[:6] == [15, 15, 15, 15, 7, 14]
    assert characters.decode(ids) == text
    assert characters.decode(np.array(ids, np.int32)) == text
    assert characters.decode(characters.encode(tokenizer.CHARACTERS)) == tokenizer.CHARACTERS


def test_characters_end_with_a_full_stop_and_pad_with_a_blank():
    characters = tokenizer.characters()
    assert characters.end_ids == tuple(characters.encode("."))
    assert [characters.pad_id] == characters.encode(" ")
    assert characters.bos_id is None
    assert characters.token_id("<|im_end|>") is None


def test_a_character_outside_the_sixteen_is_named():
    with pytest.raises(InputError, match=r"no 'x', which is in '7\+x='.*16 characters"):
        tokenizer.characters().encode("7+x=")


def test_ids_beyond_the_vocabulary_are_left_out_of_the_text():
    assert tokenizer.characters().decode([7, 16, 14, 999, -1, 8]) == "7+8"


def test_a_tokenizer_can_be_sent_to_another_process():
    copy = pickle.loads(pickle.dumps(tokenizer.characters()))
    assert copy.encode("1+2=") == tokenizer.characters().encode("1+2=")


@pytest.mark.parametrize("source", ["no/such/folder", "no/such/file.gguf", "character"])
def test_a_source_that_is_nowhere_says_what_would_do(source):
    with pytest.raises(InputError, match=f"No tokenizer at '{source}'.*preset 'characters'"):
        tokenizer.load(source)


def test_a_folder_without_a_tokenizer_lists_what_it_has(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"neither tokenizer\.json nor .* only model\.s"):
        tokenizer.load(str(tmp_path))


def test_any_part_of_a_split_gguf_or_their_folder_has_the_tokenizer_of_the_first(tmp_path):
    pieces_test.train(tmp_path / "tokenizer.model")
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = [folder / f"m-{i:05}-of-00002.gguf" for i in (1, 2)]
    pieces_test.write_gguf(parts[0], tmp_path / "tokenizer.model")
    parts[1].write_bytes(b"GGUF")
    expected = tokenizer.load(str(parts[0])).encode("half as many")
    for named in (parts[1], folder):
        assert tokenizer.load(str(named)).encode("half as many") == expected
