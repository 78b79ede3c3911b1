"""The laptop's problems: what they are, how they are split, and the documents of their form."""

import re

import pytest

from score_jax.data.sets import running_total
from score_jax.problem import InputError
from score_jax.rewards import grader


def test_problems_stay_within_one_digit_and_are_what_they_say():
    for split in ("train", "validation", "test"):
        made = running_total.problems(split, count=300)
        for problem in made:
            parts = [int(part) for part in re.findall(r"[+-]?\d", problem.prompt)]
            assert str(sum(parts)) == problem.gold
            assert problem.tags["level"] == str(len(parts))
            totals = [sum(parts[: i + 1]) for i in range(len(parts))]
            assert all(0 <= total <= 9 for total in totals) and 0 not in parts
        assert {problem.tags["level"] for problem in made} == {"3", "4"}
        assert len({problem.id for problem in made}) == len(made)


def test_the_splits_share_no_problem_and_only_training_depends_on_the_seed():
    texts = {
        split: [p.prompt for p in running_total.problems(split, seed=1, count=2000)]
        for split in ("train", "validation", "test")
    }
    assert not set(texts["test"]) & (set(texts["train"]) | set(texts["validation"]))
    assert not set(texts["validation"]) & set(texts["train"])
    assert {document.prompt for document in running_total.documents(1, 2, 2000)}.isdisjoint(
        texts["test"] + texts["validation"]
    )
    for split, same in (("train", False), ("validation", True), ("test", True)):
        other = [p.prompt for p in running_total.problems(split, seed=2, count=2000)]
        assert (other == texts[split]) is same, split
    assert len(set(texts["test"])) == len(texts["test"]) > 900
    with pytest.raises(InputError, match="train, validation, test, not 'dev'"):
        running_total.problems("dev")


def test_documents_are_first_attempts_whose_working_is_right_and_whose_answer_is_a_guess():
    made = running_total.documents(3, 4, 2000)
    assert made == running_total.documents(3, 4, 2000) != running_total.documents(3, 5, 2000)
    stated = []
    for document in made:
        (attempt,) = document.attempts
        parts = [int(part) for part in re.findall(r"[+-]?\d", document.prompt)]
        totals = "".join(str(sum(parts[: i + 1])) for i in range(1, len(parts)))
        assert attempt[1:] == f":{totals}"
        stated.append((int(attempt[0]) - int(totals[-1])) % 10)
    right = stated.count(0) / len(stated)
    assert abs(right - running_total.RIGHT) < 0.05
    others = [stated.count(slip) / len(stated) for slip in range(1, 10)]
    assert max(others) < 2 * (1 - running_total.RIGHT) / 9 and min(others) > 0.03


def test_the_answer_is_graded_not_its_working():
    problem = next(p for p in running_total.problems("test") if p.gold == "6")
    grades = [
        grader.find_grader(problem.grader)(text, "6") for text in ("6:751", "1:756", "", ":6")
    ]
    assert [grade.reward for grade in grades] == [1.0, 0.0, 0.0, 0.0]
