"""Problem sets by name: config.problems.name and .path -> the problems of a split.

Tokenising, shuffling and batching are pipeline.py's; this file only knows where problems are from.
"""

import difflib
from collections.abc import Callable, Sequence

from score_jax.data import arithmetic, gsm8k, jsonl
from score_jax.problem import InputError, Problem

SPLITS = ("train", "test")


def load(name: str, path: str, split: str, *, seed: int = 0) -> Sequence[Problem]:
    """Problems of one split of a problem set, in a fixed order.

    Args:
      name: a key of PROBLEM_SETS.
      path: a file or folder; empty for the set's own source (TFDS, or generated).
      split: "train" or "test".
      seed: of generated sets; the others do not use it.
    Raises: InputError if the set is unknown, cannot be read, is empty or has one id twice.
    """
    if name not in PROBLEM_SETS:
        nearest = difflib.get_close_matches(name, PROBLEM_SETS, n=1, cutoff=0.0)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise InputError(
            f"unknown problem set config.problems.name={name!r}. {hint}"
            f"The problem sets are {', '.join(PROBLEM_SETS)}."
        )
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}: a split is one of {', '.join(SPLITS)}.")
    return _checked(PROBLEM_SETS[name](path, split, seed), f"problem set {name!r}, split {split!r}")


def _arithmetic(path: str, split: str, seed: int) -> list[Problem]:
    if path:
        raise InputError(
            f"config.problems.path={path!r} has no meaning for 'arithmetic', whose problems are "
            f"generated from the seed. Leave it empty, or set config.problems.name=jsonl."
        )
    return arithmetic.problems(split, seed, None)


def _gsm8k(path: str, split: str, seed: int) -> list[Problem]:
    del seed
    return gsm8k.problems(path, split)


def _jsonl(path: str, split: str, seed: int) -> list[Problem]:
    del seed
    if not path:
        raise InputError(
            "problem set 'jsonl' needs --config.problems.path: a .jsonl file, or a folder that "
            "holds train.jsonl and test.jsonl."
        )
    return jsonl.problems(path, split)


def _checked(problems: list[Problem], what: str) -> list[Problem]:
    if not problems:
        raise InputError(f"{what}: is empty, so there is nothing to train on or evaluate.")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(
                f"{what}: id {problem.id!r} occurs twice; transcripts and paired comparisons need "
                f"one id per problem."
            )
        seen.add(problem.id)
    return problems


PROBLEM_SETS: dict[str, Callable[[str, str, int], list[Problem]]] = {
    "arithmetic": _arithmetic,
    "gsm8k": _gsm8k,
    "jsonl": _jsonl,
}
