"""Sums and differences of one-digit numbers: a small task for pretrained models.

A problem has three or four numbers whose running total stays within one digit. An attempt states
the answer first and its working, the running totals, behind it:

    3+4-2+1=6:756       a right attempt: 3+4=7, 7-2=5, 5+1=6
    8-5+4-6=3:371       the answer was guessed wrongly, and its own working ends in 1

The order was chosen so that there is something to correct. The answer has to be stated at once,
which a small model often gets wrong; each running total is one addition, and a second attempt can
read the last of them.

The documents, for an SFT stage, are first attempts alone: they show the form, and nothing of a
second attempt. Their working is right. Their answers are guesses, right in RIGHT of the documents
and any other digit in the rest: where every answer is right, a model learns to end its working with
a copy of its answer, and nothing is left to correct a wrong one by.

There are 729 problems of three numbers and 6,561 of four. A hash of the text splits them: one of
seven is of the split "validation", for choosing settings, one of "test", the others of "train".
"""

import functools
import zlib

import numpy as np

from score_jax.data.sets.arithmetic import Document
from score_jax.problem import InputError, Problem

NAME = "running_total"
NUMBERS = (3, 4)  # how many numbers a problem has; in training each as often
HELD_OUT = ("validation", "test")
TRAIN_PROBLEMS = 20_000
RIGHT = 0.5

Parts = tuple[int, ...]  # the first number, then what is added or taken away


def problems(split: str, seed: int = 0, count: int | None = None) -> list[Problem]:
    """Problems of a split: all there are of validation and test, in an order that no seed changes;
    those to train on are drawn with replacement.

    count: of problems to train on, by default 20,000.
    """
    if split not in ("train", *HELD_OUT):
        raise InputError(f"{NAME} has splits train, {', '.join(HELD_OUT)}, not {split!r}.")
    if split == "train":
        drawn = _draw(np.random.default_rng([seed, 1]), count or TRAIN_PROBLEMS)
    else:
        drawn = [parts for numbers in NUMBERS for parts in _split(split, numbers)]
        drawn = [drawn[i] for i in np.random.default_rng(2).permutation(len(drawn))]
    return [
        Problem(
            id=f"{NAME}/{split}/{i}",
            prompt=_text(parts),
            gold=str(sum(parts)),
            grader="first_character",
            tags={"level": str(len(parts))},
        )
        for i, parts in enumerate(drawn)
    ]


def documents(seed: int, step: int, count: int) -> list[Document]:
    """First attempts at `count` problems to train on, generated from (seed, step)."""
    rng = np.random.default_rng([seed, 3, step])
    slips = rng.integers(1, 10, count) * (rng.random(count) >= RIGHT)
    return [
        Document(_text(parts), (_attempt(parts, int(slip)),))
        for parts, slip in zip(_draw(rng, count), slips, strict=True)
    ]


def _draw(rng: np.random.Generator, count: int) -> list[Parts]:
    sets = [_split("train", numbers) for numbers in NUMBERS]
    return [
        of[rng.integers(len(of))] for of in (sets[i] for i in rng.integers(len(sets), size=count))
    ]


@functools.cache
def _split(split: str, numbers: int) -> list[Parts]:
    """All problems of a split with that many numbers."""
    found: list[Parts] = [(first,) for first in range(1, 10)]
    for _ in range(numbers - 1):
        found = [
            (*parts, total - sum(parts))
            for parts in found
            for total in range(10)
            if total != sum(parts)
        ]
    named = dict(enumerate(HELD_OUT))
    return [p for p in found if named.get(zlib.crc32(_text(p).encode()) % 7, "train") == split]


def _text(parts: Parts) -> str:
    return f"{parts[0]}{''.join(f'{part:+d}' for part in parts[1:])}"


def _attempt(parts: Parts, slip: int) -> str:
    """slip: what is added to the right answer, modulo 10."""
    totals = np.cumsum(parts)[1:]
    return f"{(totals[-1] + slip) % 10}:{''.join(map(str, totals))}"
