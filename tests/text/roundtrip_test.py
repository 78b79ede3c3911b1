"""Templates: texts of any kind come back from ids as they were, and hold no special token."""

from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.text import templates, tokenizer

FEW = settings(max_examples=60, deadline=None)
CHARACTERS = tokenizer.load("characters")
SUMS = st.text("0123456789+= ?:", max_size=40)
# Prose of any script, with what would close or open a turn if it were read as a special token.
# Of unassigned and control characters SmolLM2's vocabulary lacks bytes: it drops them.
SPECIAL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "\n", " ", "<|im_", "end|>"]
WRITTEN = st.characters(exclude_categories=["C"])
PROSE = st.lists(st.sampled_from(SPECIAL) | st.text(WRITTEN, max_size=12), max_size=6).map("".join)


def made(name: str, of):
    return templates.make(name, of, prompt_format="{problem}", instruction="+?", system="")


@FEW
@given(SUMS, SUMS)
def test_a_plain_first_turn_is_the_problem_alone(text, other):
    found = made("plain", CHARACTERS)
    ids = found.first_turn(text)
    assert CHARACTERS.decode(ids) == text
    assert not set(ids) & set(CHARACTERS.end_ids)
    assert (ids == found.first_turn(other)) == (text == other)


def test_texts_come_back_as_they_were_and_no_part_of_them_is_a_special_token(smollm2):
    found = made("chatml", smollm2)
    special, closing = set(smollm2.special.values()), len(found.turn_end_ids)
    empty = [i for i in found.first_turn("") if i in special]

    @FEW
    @given(PROSE)
    def holds(text):
        ids = found.attempt_ids(text)
        assert found.attempt_text(ids[:-closing]) == text
        assert not set(ids[:-closing]) & special
        assert ids[-closing:] == found.turn_end_ids
        row = found.first_turn(text)
        assert [i for i in row if i in special] == empty
        assert f"user\n{text}<|im_end|>" in smollm2.show(row)

    holds()
