"""What lies behind an evaluation's shares: conditional rates, groups, later attempts, stopping.

All from whole-number counts, as in metrics.py, with Wilson intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.evaluation.metrics import paired_bootstrap_interval, wilson_interval


def details(
    reward_NA: np.ndarray,
    texts: Sequence[Sequence[str]],
    tokens_NA: np.ndarray,
    tags: Sequence[Mapping[str, str]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Of N problems and A attempts.

    Args:
      reward_NA: 0 or 1.
      texts: of all attempts, to see which repeats the one before it.
      tokens_NA: written in each attempt.
      tags: of the problems; for each key that several have (level, subject) there are groups.

    Returns: `by`: {tag: {value: shares}}; with two attempts or more also
      `fix_rate`, `break_rate`: second attempts that are right behind a wrong first, and wrong
        behind a right one, each {"share", "n", "interval"} of the n problems it can happen to;
      `transitions`: from each attempt to the next, counts of problems;
      `stop_when_stable`: if one stops asking as soon as an attempt repeats the one before it.
    """
    right_NA = np.asarray(reward_NA) > 0
    found: dict[str, Any] = {"by": _groups(right_NA, tags)}
    if right_NA.shape[1] > 1:
        first_N, second_N = right_NA[:, 0], right_NA[:, 1]
        found["fix_rate"] = _share(second_N[~first_N])
        found["break_rate"] = _share(~second_N[first_N])
        found["transitions"] = [
            _transition(right_NA[:, a], right_NA[:, a + 1], a + 1, seed)
            for a in range(right_NA.shape[1] - 1)
        ]
        found["stop_when_stable"] = stop_when_stable(right_NA, texts, tokens_NA)
    return found


def stop_when_stable(
    right_NA: np.ndarray, texts: Sequence[Sequence[str]], tokens_NA: np.ndarray
) -> dict[str, Any]:
    """Accuracy and cost of asking again until an attempt reads like the one before it.

    The repetition has to be written to be seen, so it is paid for. Exact for greedy decoding, where
    attempts do not depend on when one stops.
    """
    stops = np.array([_stop([text.strip() for text in row]) for row in texts])
    rows = np.arange(len(stops))
    written_NA = np.cumsum(tokens_NA, axis=1)
    hits = int(right_NA[rows, stops].sum())
    return {
        "accuracy": hits / len(stops),
        "interval": wilson_interval(hits, len(stops)),
        "attempts": float(stops.mean() + 1),
        "tokens": float(written_NA[rows, stops].mean()),
        "tokens_of_all_attempts": float(written_NA[:, -1].mean()),
    }


def verdicts(true_NA: np.ndarray, kept: Sequence[Sequence[bool | None]]) -> dict[str, Any]:
    """Of selective revision, over all attempts after the first.

    Args:
      true_NA: whether the attempt's verdict is true; 0 for attempt 1.
      kept: for each later attempt whether it keeps what stood, None if it does not say.
    """
    said = [one for row in kept for one in row]
    return {
        "verdict_accuracy": float(true_NA[:, 1:].mean()),
        "kept": sum(one is True for one in said) / len(said),
        "without_verdict": sum(one is None for one in said) / len(said),
    }


def _stop(texts: Sequence[str]) -> int:
    """The first attempt, counted from 0, that repeats the one before it; else the last."""
    repeats = (a for a in range(1, len(texts)) if texts[a] == texts[a - 1])
    return next(repeats, len(texts) - 1)


def _transition(before_N: np.ndarray, after_N: np.ndarray, number: int, seed: int):
    gained, lost = int((~before_N & after_N).sum()), int((before_N & ~after_N).sum())
    n = len(before_N)
    return {
        "from": number,
        "to": number + 1,
        "both_right": int((before_N & after_N).sum()),
        "wrong_right": gained,
        "right_wrong": lost,
        "both_wrong": int((~before_N & ~after_N).sum()),
        "delta": (gained - lost) / n,
        "interval": paired_bootstrap_interval(gained, lost, n, seed=seed),
    }


def _groups(right_NA: np.ndarray, tags: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Accuracies by every tag that groups problems (not one that names each of them)."""
    found: dict[str, Any] = {}
    for key in sorted({key for row in tags for key in row}):
        values = np.array([row.get(key, "?") for row in tags])
        kinds = sorted(set(values.tolist()))
        if len(kinds) == len(values):
            continue
        found[key] = {
            kind: {
                "n": int((values == kind).sum()),
                **{
                    f"accuracy_attempt{a + 1}": float(right_NA[values == kind, a].mean())
                    for a in range(right_NA.shape[1])
                },
            }
            for kind in kinds
        }
    return found


def _share(where: np.ndarray) -> dict[str, Any]:
    """Of the problems that it can happen to; without any there is no share."""
    n, hits = len(where), int(where.sum())
    if not n:
        return {"share": None, "n": 0, "interval": None}
    return {"share": hits / n, "n": n, "interval": wilson_interval(hits, n)}
