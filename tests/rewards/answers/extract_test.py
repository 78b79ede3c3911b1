"""Where an answer is found, and where none is searched for."""

import time

import pytest

from score_jax.rewards.answers.extract import WINDOW_CHARS, extract

FOUND = [
    ("Final Answer: The final answer is $42$. I hope it is correct.", "$42$"),
    ("Final Answer: The final answer is $x^2. 5$. I hope it is correct.", "$x^2. 5$"),
    ("The final answer is $\\$7.50$. I hope it is correct.", "$\\$7.50$"),
    ("The final answer is 8:34 p.m. I hope it is correct.", "8:34 p.m"),
    ("**The final answer is:** 42", "42"),
    ("The Final Answer is: **42**.", "42"),
    ("the final answer is 3.5 dollars.\nBye", "3.5 dollars"),
    ("The final answer is $18. She then buys 5 more.", "$18"),
    ("The final answer is 5. The final answer is 6.", "6"),
    ("The final answer is\n\n\\[\\boxed{5}\\]", "5"),
    ("The final answer is $5+4+2=\\boxed{11}$.", "11"),
    ("The final answer is $\\boxed{5}$ or $\\boxed{6}$.", "${5}$ or ${6}$"),
    ("The final answer is $\\boxed{5}$ or 6.", "${5}$ or 6"),
    ("The final answer is \\[2+3=\\boxed{5},\\]\nwhere we used that $2^2$ is 4.", "5"),
    ("The final answer is $\\boxed{5}$, 6, where we used 2.", "${5}$, 6"),
    ("\\boxed{3} but then: The final answer is $4$. I hope it is correct.", "$4$"),
    ("The final answer is $4$. I hope it is correct. \\boxed{3}", "3"),
    ("The final answer is in the form a+b. So \\boxed{5}", "5"),
    ("The final answer is Sunday.", "Sunday"),
    ("The final answer is odd. I hope it is correct. Not \\boxed{3}", "3"),
    ("The final answer is 15 * 8 = 120 pints\n#### 120", "120"),
    ("so \\boxed{1}, no, \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
    ("\\boxed{\\boxed{5}}", "{5}"),
    ("\\boxed{6\\boxed{5}}", "6{5}"),
    ("\\boxed{5} and \\boxed{6", "5"),
    ("$\\boxed 2$", "2"),
    ("$\\fbox{ 7 }$", "7"),
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\boxed{5}} more }", "5"),
    ("He has 6*7=42.\n#### 42", "42"),
    ("#### 41\n#### 42\nDone.", "42"),
    ("The answer is 42.", "42"),
    ("\\boxed{1}" + "a" * (WINDOW_CHARS - 1) + "\n#### 2", "2"),
]


@pytest.mark.parametrize(("text", "answer"), FOUND)
def test_stated_answer_is_found(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        "I get 42, so 42 it is.",
        "$x = 42$",
        "The final answer is",
        "The final answer issues from 42",
        "\\boxed{42",
        "\\boxed{}",
        "\\boxedx{42}",
        "\\boxed{42 and the answer is 42. #### 42",
        "####",
        "\\boxed{42}" + "a" * WINDOW_CHARS,
    ],
)
def test_nothing_is_found_in_prose_or_broken_boxes(text):
    assert extract(text) is None


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "}", "{", "final answer is $", "answer is ", "\\", "#### ", "\\boxed "]
)
def test_time_does_not_grow_with_hostile_repetition(piece):
    began = time.perf_counter()
    extract(piece * (1_000_000 // len(piece)))
    assert time.perf_counter() - began < 0.5
