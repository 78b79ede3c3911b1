"""Published solutions of GSM8K and MATH are right for their problem and wrong for others.

The files are expected beside the repository, in ../shared/data; SOURCES says where they are from.
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from score_jax.rewards.answers.extract import extract
from score_jax.rewards.answers.grade import grade_answers
from score_jax.rewards.answers.numbers import literal
from score_jax.rewards.answers.parse import read
from score_jax.rewards.answers.spelling import normalise, tight

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SOURCES = "GSM8K from openai/grade-school-math, MATH in the split of openai/prm800k, as jsonl files"


def rows(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there ({SOURCES})")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def gsm8k(split: str) -> list[tuple[str, str]]:
    """(solution, gold) pairs."""
    return [
        (row["answer"], row["answer"].rsplit("####", 1)[1].strip())
        for row in rows(f"gsm8k/{split}.jsonl")
    ]


# Those of MATH's 12,500 published solutions that are not graded right, and why.
NOT_RIGHT = {
    "train/number_theory/7115.json": "the published gold and box are empty",
    "train/number_theory/7117.json": "the published gold and box are empty",
}


def math(split: str) -> list[tuple[str, str]]:
    return [(row["solution"], row["answer"]) for row in rows(f"math/{split}.jsonl")]


def share_right(pairs: list[tuple[str, str]]) -> float:
    return sum(grade.reward for grade in grade_answers(pairs)) / len(pairs)


def shuffled(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each solution with the gold of another problem, where the two golds differ."""
    golds = [gold for _, gold in pairs]
    random.Random(0).shuffle(golds)
    return [
        (solution, other)
        for (solution, gold), other in zip(pairs, golds, strict=True)
        if spelled(gold) != spelled(other)
    ]


def spelled(gold: str) -> str:
    """Golds that differ only in spelling, in a degree sign, or in "x =" are the same answer."""
    value = read(normalise(gold))
    number = literal(value.body)
    return str(number) if number is not None else tight(value.body)


@pytest.mark.parametrize("split", ["test", "train"])
def test_gsm8k_golds_are_right_in_their_own_solutions(split):
    assert share_right(gsm8k(split)) == 1.0


def test_gsm8k_golds_are_wrong_for_other_problems():
    assert share_right(shuffled(gsm8k("test"))) == 0.0


def test_math_golds_are_right_in_their_own_solutions():
    assert share_right(math("test")) == 1.0


def test_sample_of_math_golds_is_right_in_the_papers_sentence():
    sample = random.Random(0).sample(math("train"), 200)
    sentence = "Final Answer: The final answer is ${}$. I hope it is correct."
    assert share_right([(sentence.format(gold), gold) for _, gold in sample]) == 1.0


def test_sample_of_math_golds_is_wrong_for_other_problems():
    sample = random.Random(0).sample(math("train"), 200)
    assert share_right(shuffled(sample)) == 0.0


@pytest.mark.slow
def test_all_math_golds_are_right_in_their_own_solutions():
    wrong = {}
    for split in ("train", "test"):
        names = [row["unique_id"] for row in rows(f"math/{split}.jsonl")]
        for name, grade in zip(names, grade_answers(math(split)), strict=True):
            if not grade.reward:
                wrong[name] = grade.reason
    assert wrong.keys() == NOT_RIGHT.keys(), wrong


@pytest.mark.slow
def test_all_math_golds_are_wrong_for_other_problems():
    pairs = shuffled(math("train"))
    grades = grade_answers(pairs)
    accepted = [
        (gold, extract(solution))
        for (solution, gold), grade in zip(pairs, grades, strict=True)
        if grade.reward
    ]
    reasons = Counter(grade.reason for grade in grades)
    assert len(accepted) / len(pairs) <= 0.003, accepted
    assert reasons["timeout"] + reasons["crash"] == 0, reasons
