"""Templates: texts of any kind come back from ids as they were, and hold no special token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.problem import Problem
from score_jax.text import templates, tokenizer

FEW = settings(max_examples=60, deadline=None)
CHARACTERS = tokenizer.load("characters")
TEXT = st.text(st.sampled_from("0123456789+-= ?!,.\n"), max_size=40)


def made(template: str):
    return templates.make(
        template, CHARACTERS, prompt_format="{problem}", instruction="Again: ", system=""
    )


@pytest.mark.parametrize("template", ["plain"])
@FEW
@given(TEXT)
def test_an_attempt_comes_back_as_it_was(template, text):
    found = made(template)
    known = "".join(c for c in text if len(CHARACTERS.encode(c)) == 1)
    ids = found.attempt_ids(known)
    assert ids[-1] in CHARACTERS.end_ids
    assert found.attempt_text(ids[:-1]) == known


@FEW
@given(TEXT, TEXT)
def test_a_first_turn_holds_the_whole_problem_and_no_end(text, other):
    found = made("plain")
    known, another = (
        "".join(c for c in x if len(CHARACTERS.encode(c)) == 1) for x in (text, other)
    )
    ids = found.first_turn(Problem("1", known, "0"))
    assert CHARACTERS.decode(ids) == known
    assert not set(ids) & set(CHARACTERS.end_ids)
    assert (ids == found.first_turn(Problem("2", another, "0"))) == (known == another)
