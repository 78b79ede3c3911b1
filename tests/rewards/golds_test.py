"""Right answers that no attempt could match are found before a run trains on zeros."""

import json
import logging

import pytest

from score_jax.problem import InputError, Problem
from score_jax.rewards import golds, grader
from tests.data.real import REAL, needs_real_data


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("<answer>12</answer>", "it has a tag in it"),
        ("12</answer>", "it has a tag in it"),
        ("12<|im_end|>", "it has a tag in it"),
        (r"We add. So it is $\boxed{12}$.", "it has a box in it"),
        (r"\boxed{12}", "it has a box in it"),
        ("4 + 8 = 12\n#### 12", "it has a #### in it"),
        ("The answer is 12.", "it is a sentence"),
        ("Answer: 12", "it is a sentence"),
        ("So it is 12", "it is a sentence"),
        ("Therefore, we get 12", "it is a sentence"),
        ("Add both numbers. They make 12", "it is a sentence"),
        ("x" * 301, "it is longer than an answer can be (300 characters)"),
        (r"2\}{", "its braces do not close"),
    ],
)
def test_a_gold_that_no_answer_equals_has_a_reason(gold, reason):
    assert golds.faults([gold]) == [reason]


@pytest.mark.parametrize(
    "gold",
    [
        r"12",
        r"-0.5",
        r"12.",
        r"$12$",
        r"\frac{1}{2}",
        r"x < 3",
        r"(1, 2]",
        r"\text{even}",
        r"Tuesday",
        r"12 apples",
        r"3:30 p.m.",
        r"50\%",
        r"a<b>c",
        r"no solution",
        r"all real numbers",
        r"D",
    ],
)
def test_a_plain_answer_has_none(gold):
    assert golds.faults([gold]) == [""]


@needs_real_data
def test_no_gold_of_math_is_refused_and_nearly_all_solutions_are():
    rows = [json.loads(line) for line in (REAL / "math" / "test.jsonl").read_text().splitlines()]
    assert not any(golds.faults([row["answer"] for row in rows]))
    assert all(golds.faults([row["solution"] for row in rows]))
    taken = [golds.taken_out(row["solution"]) for row in rows]
    assert not any(golds.faults(taken))


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"We add. So it is $\boxed{12}$.", "12"),
        ("4 + 8 = 12\n#### 12", "12"),
        ("The answer is 12.", "12"),
        ("<think>It is 3.</think><answer> 12 </answer>", "12"),
        (r"<answer>It is \boxed{12}.</answer>", "12"),
        ("12", "12"),
        ("Nobody knows.", "Nobody knows."),
    ],
)
def test_the_answer_is_taken_out_of_a_solution(solution, answer):
    assert golds.taken_out(solution) == answer


def rows(bad: int, good: int, file: str = "own.jsonl") -> list[Problem]:
    made = ["<answer>1</answer>"] * bad + ["1"] * good
    return [Problem(f"p{i}", "?", gold, where=f"{file}, line {i}") for i, gold in enumerate(made)]


def test_bad_golds_are_listed_with_line_reason_and_what_to_do():
    with pytest.raises(InputError) as caught:
        grader.prepare(rows(bad=10, good=5), attempts=2)
    said = str(caught.value)
    assert said.startswith("own.jsonl: 10 of 15 right answers are nothing")
    assert "earns 0: line 0 (p0): it has a tag in it: '<answer>1</answer>'; line 1 (p1): " in said
    assert "and 2 more" in said and "p8" not in said
    assert "--config.problems.solutions=True" in said


def test_a_share_of_bad_golds_is_accepted_and_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        grader.prepare(rows(bad=2, good=98), attempts=2)
    assert "own.jsonl: 2 of 100 right answers are nothing" in caplog.text
    with pytest.raises(InputError, match="2 of 100"):
        grader.prepare(rows(bad=2, good=98), attempts=2, bad_golds=0.01)


def test_each_file_has_a_share_of_its_own():
    with pytest.raises(InputError, match=r"^test\.jsonl: 3 of 3 right answers"):
        grader.prepare([*rows(0, 997), *rows(3, 0, "test.jsonl")], attempts=2)


def test_golds_of_other_graders_are_not_looked_at():
    problem = Problem("p", "?", "<answer>", "first_character")
    assert grader.prepare([problem], attempts=2) == ""


def test_right_programs_that_fail_their_tests_are_listed_with_the_reason():
    gold = json.dumps({"tests": ["assert twice(2) == 4"]})
    right, wrong = "def twice(x):\n    return 2 * x\n", "def twice(x):\n    return x\n"

    def tasks(*references: str) -> list[Problem]:
        return [
            Problem(
                f"p{i}", "?", gold, "program", reference=reference, where=f"own.jsonl, line {i}"
            )
            for i, reference in enumerate(references)
        ]

    assert grader.prepare(tasks(right, "", right), attempts=2)
    said = r"own\.jsonl: 1 of 2 programs do not pass .*: line 1 \(p1\): failed\."
    with pytest.raises(InputError, match=said):
        grader.prepare(tasks(right, wrong, ""), attempts=2)
