"""Texts of any kind: a grade and a reason, never an exception, and no reward for noise."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.problem import Grade
from score_jax.rewards.answers import grade_answer
from score_jax.rewards.answers.extract import extract
from tests import mutator

SEEDS = [
    rb"So x = 3. The final answer is $\frac{1}{2}$. I hope it is correct.",
    rb"We get \boxed{x^2 + 2x - \sqrt{3}} because 2^{10} = 1024.",
    rb"#### 1,234.50",
    rb"The answer is (1, 2] \cup \{3, 4\}, or 50\%, or $12.5",
    rb"<answer>\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}</answer>",
    rb"\boxed{\text{Monday}} \boxed{10^{10^{10}}} \left( \dfrac{\pi}{6} \right)",
    "Antwort: \u221a2 \u2264 x \u2212 1 \u00b7 10\u207b\u00b3 \U0001d7d9 \u0661\u0662".encode(),
    rb"12 \times 3^{-2} \equiv 5 \pmod{7}; f(x)=|x|; 1/0; 0.333...; 3\frac{1}{7}",
]
GOLDS = ["7/9", r"\frac{1}{2}", "x^2+2x-\\sqrt{3}", "(1,2]", "Monday", "#### 1234.5"]


def fuzz_answers(seconds: float, seed: int = 0) -> int:
    slowest = 0.0
    grade_answer("x + 1", "1 + x")  # starts the processes that decide hard answers

    def grade(data: bytes) -> None:
        nonlocal slowest
        text = data.decode("utf-8", "surrogateescape" if data[:1] > b"P" else "replace")
        began = time.monotonic()
        found = grade_answer(text, GOLDS[len(data) % len(GOLDS)])
        slowest = max(slowest, time.monotonic() - began)
        assert isinstance(found, Grade) and found.reward in (0.0, 1.0) and found.reason

    count = mutator.survives(grade, SEEDS, seconds, seed=seed)
    print(f"{count} texts, the slowest {slowest:.2f} s")
    return count


def test_mutated_texts_are_graded():
    assert fuzz_answers(3.0, seed=2) > 20  # of seed 0 one of the first takes all that time


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes_of_mutated_texts():
    fuzz_answers(600.0, seed=1)


NUMBERS = st.integers(-(10**12), 10**12)
PROSE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(PROSE, NUMBERS)
def test_what_a_text_states_last_in_a_box_is_its_answer(before, number):
    stated = rf"{before}" + "\n" + rf"The final answer is \boxed{{{number}}}."
    assert grade_answer(stated, str(number)).reward == 1.0
    assert grade_answer(stated, str(number + 1)).reward == 0.0


@settings(max_examples=150, deadline=None)
@given(st.text("abc xyz.,:;!?\n", max_size=80))
def test_prose_without_an_answer_earns_nothing(text):
    assert grade_answer(text, "7").reward == 0.0


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_extraction_takes_any_text_and_gives_a_part_of_it_or_nothing(text):
    found = extract(text)
    assert found is None or isinstance(found, str)
