"""Which braces of a prompt are fields, and which are text."""

import pytest

from score_jax.problem import InputError
from score_jax.text import prompt_text

VALUES = {"problem": "1+1?", "context": "Sums.", "meta.topic": "maths", "choices.0": "2"}


def filled(text: str) -> str:
    return prompt_text.filled(text, VALUES.__getitem__)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{context}\nQ: {problem}\nA:", "Sums.\nQ: 1+1?\nA:"),
        ("{context}{problem}", "Sums.1+1?"),
        ("{problem} Again: {problem}", "1+1? Again: 1+1?"),
        ("{meta.topic}: {problem} ({choices.0})", "maths: 1+1? (2)"),
        # Doubled braces, as str.format has them around a name.
        ("Fill in {{context}}: {problem}", "Fill in {context}: 1+1?"),
        ("{{{problem}}}", "{1+1?}"),
        # TeX, and other braces.
        (r"\frac{1}{2} of {problem}", r"\frac{1}{2} of 1+1?"),
        (r"\frac{context}{problem}: {problem}", r"\frac{context}{problem}: 1+1?"),
        (r"Write \boxed{answer}. {problem}", r"Write \boxed{answer}. 1+1?"),
        (r"\sqrt[3]{n} \sqrt{\frac{a}{b}} {problem}", r"\sqrt[3]{n} \sqrt{\frac{a}{b}} 1+1?"),
        (r"$x^{n}$, $a_{i}$ \text{{problem}} {problem}", r"$x^{n}$, $a_{i}$ \text{{problem}} 1+1?"),
        (r"\operatorname*{max} \{a\} \{{problem}\}", r"\operatorname*{max} \{a\} \{1+1?\}"),
        (r"\begin{align} {problem} \end{align}", r"\begin{align} 1+1? \end{align}"),
        (r"{1, 2} {n \choose k} {} {{}} {problem", r"{1, 2} {n \choose k} {} {{}} {problem"),
        ('{"answer": 3} {problem} {{"a": {{}}}}', '{"answer": 3} 1+1? {{"a": {{}}}}'),
        (r"\frac{a {problem}", r"\frac{a 1+1?"),  # never closed: no TeX
        (r"\ {problem} \\ {context}", r"\ 1+1? \\ Sums."),
    ],
)  # fmt: skip
def test_only_plain_names_in_braces_are_fields(text, expected):
    assert filled(text) == expected


def test_a_value_is_not_looked_through_for_fields():
    assert prompt_text.filled("{a}{b}", {"a": "{b}", "b": "{{a}}"}.__getitem__) == "{b}{{a}}"


def test_fields_come_in_order_and_once():
    assert prompt_text.fields_of(r"{b} {a} {b} {{c}} x^{d} {größe-2}") == ["b", "a", "größe-2"]


@pytest.mark.parametrize("text", ["Solve it.", "{context}", r"\n{problem}", "{{problem}}"])
def test_a_text_without_a_place_for_the_problem_is_refused(text):
    with pytest.raises(InputError, match=r"config\.x=.* has no \{problem\}") as caught:
        prompt_text.check(text, "config.x")
    assert ("context" in str(caught.value)) == ("context" in text)


def test_a_long_prompt_is_read_once():
    text = "x" * 5000 + "{problem}"
    assert filled(text) == filled(text)
    before = prompt_text.pieces.cache_info().misses
    filled(text)
    assert prompt_text.pieces.cache_info().misses == before


def test_pieces_are_texts_and_fields_in_turn():
    assert prompt_text.pieces(r"\frac{a}{b}: {problem}{x}!") == (
        (r"\frac{a}{b}: ", False),
        ("problem", True),
        ("x", True),
        ("!", False),
    )


def test_where_no_row_is_known_digits_stand_for_fields():
    said = 'Look: {problem} {meta.topic}, {{word}}, \\boxed{answer}, {1, 2}, {"a": 3}'
    assert prompt_text.stand_in(said) == ('Look: 0 0, {word}, \\boxed{answer}, {1, 2}, {"a": 3}')
