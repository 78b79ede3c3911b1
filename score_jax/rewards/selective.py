"""Selective revision: a later attempt opens with a verdict on the one before, and may stop there.

    3+8+6+5+6=1:1728.?+8:1728.     "+": the first is wrong; what follows is the new answer
    7+3      =0:0.?=.              "=": the first is kept, and nothing more is written

The answer after an attempt is the attempt before it if that is kept, else the rest of the attempt's
own text. This answer is graded, so accuracies mean the same as without verdicts. An attempt that
opens with neither mark answers nothing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Marks:
    """How an attempt opens."""

    keeps: str
    revises: str


def answers(texts: Sequence[str], marks: Marks) -> list[str]:
    """The answer after each attempt of an episode, in the form of a first attempt."""
    found = [texts[0]]
    for text in texts[1:]:
        kept = verdict(text, marks)
        revised = "" if kept is None else _opening(text).removeprefix(marks.revises)
        found.append(found[-1] if kept else revised)
    return found


def truncated(
    texts_BA: Sequence[Sequence[str]], truncated_BA: np.ndarray, marks: Marks
) -> np.ndarray:
    """[B, A]: whether the answer after each attempt comes from a truncated attempt."""
    result_BA = np.array(truncated_BA, bool)
    for b, texts in enumerate(texts_BA):
        for a, text in enumerate(texts[1:], start=1):
            if verdict(text, marks):
                result_BA[b, a] |= result_BA[b, a - 1]
    return result_BA


def verdict(text: str, marks: Marks) -> bool | None:
    """Whether the attempt keeps the one before it; None if it opens with neither mark."""
    opening = _opening(text)
    if opening.startswith(marks.keeps):
        return True
    return False if opening.startswith(marks.revises) else None


def true_verdicts(
    texts_BA: Sequence[Sequence[str]], solved_BA: np.ndarray, marks: Marks
) -> np.ndarray:
    """[B, A] float: 1 where an attempt's verdict on the answer before is true; 0 for attempt 1."""
    true_BA = np.zeros(solved_BA.shape, np.float32)
    for b, texts in enumerate(texts_BA):
        for a, text in enumerate(texts[1:], start=1):
            true_BA[b, a] = verdict(text, marks) == bool(solved_BA[b, a - 1])
    return true_BA


def _opening(text: str) -> str:
    return text.lstrip(" \t\n")
