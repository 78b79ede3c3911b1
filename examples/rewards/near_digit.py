"""Example of a reward between 0 and 1: how near an answer of the arithmetic task is.

    --config.rewards.function=examples.rewards.near_digit:near

Only the right digit earns 1, so `solved` counts as with the built-in grader; a digit that is one
off earns 8/9. No digit earns 0.
"""

from collections.abc import Sequence

from score_jax.problem import Problem
from score_jax.rewards.answers import voting


def near(problem: Problem, texts: Sequence[str], gold: str) -> list[tuple[float, str]]:
    """1 - |digit - gold| / 9 of each attempt."""
    del problem
    rewards = []
    for text in texts:
        digit = voting.stated("first_character", text)
        if digit is None:
            rewards.append((0.0, "no_answer"))
        else:
            off = abs(int(digit) - int(gold))
            rewards.append((1.0 - off / 9, f"off_by_{off}"))
    return rewards
