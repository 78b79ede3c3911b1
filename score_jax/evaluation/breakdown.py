"""Details of an evaluation: conditional rates, groups of problems, later attempts, early stopping.

Everything is computed from whole-number counts, as in metrics.py, with Wilson intervals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.evaluation.metrics import paired_bootstrap_interval, wilson_interval


def details(
    solved_NA: np.ndarray,
    texts: Sequence[Sequence[str]],
    tokens_NA: np.ndarray,
    tags: Sequence[Mapping[str, str]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Details for N problems and A attempts.

    Args:
      solved_NA: 0 or 1.
      texts: all attempts, to see which ones repeat the one before.
      tokens_NA: generated tokens of each attempt.
      tags: of the problems; a key with values that problems share (level, subject) gives groups.

    Returns: `by`: {tag: {value: shares}}; with two attempts or more also
      `fix_rate`, `break_rate`: the share of second attempts that are right after a wrong first, or
        wrong after a right first; each {"share", "n", "interval"}, n being the number of such
        firsts;
      `transitions`: from each attempt to the next, counts of problems;
      `stop_when_stable`: the result of stopping when an attempt repeats the one before it.
    """
    right_NA = np.asarray(solved_NA, bool)
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
    """Accuracy and cost of asking for attempts until one repeats the one before it.

    The repetition must be generated to be noticed, so its tokens count. Exact for greedy decoding,
    where an attempt does not depend on whether later ones follow.
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
    """Metrics of selective revision, over all attempts after the first.

    Args:
      true_NA: whether the attempt's verdict is true; 0 for attempt 1.
      kept: for each later attempt whether it keeps the answer before it, None without a verdict.
    """
    all_kept = [one for row in kept for one in row]
    return {
        "verdict_accuracy": float(true_NA[:, 1:].mean()),
        "kept": sum(one is True for one in all_kept) / len(all_kept),
        "without_verdict": sum(one is None for one in all_kept) / len(all_kept),
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
    """Accuracies by every tag that groups problems; a tag that differs for all gives no groups."""
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
    """The share of True, its n and its interval; share and interval are None for n = 0."""
    n, hits = len(where), int(where.sum())
    if not n:
        return {"share": None, "n": 0, "interval": None}
    return {"share": hits / n, "n": n, "interval": wilson_interval(hits, n)}
