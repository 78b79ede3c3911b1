"""Selective revision: a later attempt opens with a verdict on the one before, and may stop there.

    3+8+6+5+6=1:1728.?+8:1728.     "+": the first is wrong; what follows is the new answer
    7+3      =0:0.?=.              "=": the first stands, and nothing more is written

What an attempt answers is what stands after it: the attempt before if it is kept, the rest of its
text if it is not. That is what is graded, so accuracies mean what they mean without verdicts. An
attempt that opens with neither mark answers nothing.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Marks:
    """How an attempt opens."""

    keeps: str
    revises: str


def standing(texts: Sequence[str], marks: Marks) -> list[str]:
    """What each attempt of an episode answers, in the form in which a first attempt does."""
    stands = [texts[0]]
    for text in texts[1:]:
        kept = verdict(text, marks)
        if kept is None:
            stands.append("")
        else:
            stands.append(stands[-1] if kept else _opening(text).removeprefix(marks.revises))
    return stands


def cut_off(
    texts_BA: Sequence[Sequence[str]], truncated_BA: np.ndarray, marks: Marks
) -> np.ndarray:
    """[B, A]: whether what stands was cut off when it was written."""
    cut_BA = np.array(truncated_BA, bool)
    for b, texts in enumerate(texts_BA):
        for a, text in enumerate(texts[1:], start=1):
            if verdict(text, marks):
                cut_BA[b, a] |= cut_BA[b, a - 1]
    return cut_BA


def verdict(text: str, marks: Marks) -> bool | None:
    """Whether the attempt keeps the one before it; None if it does not say."""
    opening = _opening(text)
    if opening.startswith(marks.keeps):
        return True
    return False if opening.startswith(marks.revises) else None


def true_verdicts(
    texts_BA: Sequence[Sequence[str]], reward_BA: np.ndarray, marks: Marks
) -> np.ndarray:
    """[B, A] float: 1 where an attempt's verdict on what stood before is true; 0 for attempt 1."""
    true_BA = np.zeros(reward_BA.shape, np.float32)
    for b, texts in enumerate(texts_BA):
        for a, text in enumerate(texts[1:], start=1):
            true_BA[b, a] = verdict(text, marks) == bool(reward_BA[b, a - 1] > 0)
    return true_BA


def _opening(text: str) -> str:
    return text.lstrip(" \t\n")
