"""What was solved in an evaluation -> shares of all n problems, each with a 95 % interval.

Everything is computed from whole-number counts, so a share is exactly a count over n. Shares have
Wilson intervals. Differences between attempts are paired (the same problems, the same model), so
their intervals come from a bootstrap over problems, and the test is McNemar's. sampled.py has
averages over several samples of a problem, and pass@k.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_jax.grading import UNREADABLE, reason_shares
from score_jax.problem import InputError

Interval = list[float]  # [low, high]

_Z_95 = 1.959963984540054  # the normal quantile that leaves 2.5 % on either side
RESAMPLES = 10_000  # of a bootstrap
EDIT_BINS = 20  # of the histogram of edit ratios, over [0, 1]


def evaluation_metrics(
    solved_NA: np.ndarray,
    changed_N: np.ndarray | None,
    truncated_NA: np.ndarray,
    *,
    reward_NA: np.ndarray | None = None,
    reasons: Sequence[Sequence[str]] | None = None,
    lenient_NA: np.ndarray | None = None,
    edit_ratio_N: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics of one or more attempts at the N problems of an evaluation.

    Args:
      solved_NA: 0 or 1 for each problem and attempt.
      changed_N: whether the second attempt differs from the first; unused with one attempt.
      truncated_NA: whether the attempt hit its length limit.
      reward_NA: where some of them are not 0 or 1 for solved, they add their means
        `reward_attempt1` … with normal intervals.
      reasons: of the verdicts, N lists of A. They add `reasons` ({attempt1: {reason: share}, …}),
        `unreadable_attempt1` … (shares of grading.UNREADABLE) and, where there are two attempts,
        the parts of incorrect_to_correct: `format_repaired`, where attempt 1 was unreadable or
        truncated, and `answer_repaired`, where it was another answer. They add up to it exactly.
      lenient_NA: whether it is solved by lenient grading (grading.py), which adds
        `lenient_attempt1` …
      edit_ratio_N: in [0, 1], how much of the first attempt the second rewrites (edits.py).
      seed: of the bootstrap; the same values and seed give the same intervals.

    Returns: `n`, `accuracy_attempt1` …, `truncated_attempt1` …, and an `interval` for every share.
      With two attempts or more also `delta` (second minus first), `incorrect_to_correct`,
      `correct_to_incorrect`, `changed` and `mcnemar_p`, all between attempts 1 and 2; with three or
      more also `delta_last` (last minus first). Shares are fractions of all n problems and
      `delta == incorrect_to_correct - correct_to_incorrect` holds exactly. With edit ratios also
      their mean `edit_ratio` and `edit_ratio_histogram`, counts of EDIT_BINS bins over [0, 1].
    Raises: InputError without problems; ValueError if shapes differ or solved_NA is not 0 or 1.
    """
    right_NA = _checked(solved_NA, truncated_NA)
    n, attempts = right_NA.shape
    share: dict[str, float] = {}
    interval: dict[str, Interval] = {}

    def count(name: str, where_N: np.ndarray) -> None:
        hits = int(np.count_nonzero(where_N))
        share[name] = hits / n
        interval[name] = wilson_interval(hits, n)

    def difference(name: str, after_N: np.ndarray) -> tuple[int, int]:
        """Of a later attempt to the first; returns how many problems it gained and lost."""
        gained = int((~right_NA[:, 0] & after_N).sum())
        lost = int((right_NA[:, 0] & ~after_N).sum())
        # The difference of two shares, not of the accuracies: exact in floating point.
        share[name] = gained / n - lost / n
        interval[name] = paired_bootstrap_interval(gained, lost, n, seed=seed)
        return gained, lost

    truncated_NA = np.asarray(truncated_NA, bool)
    unreadable_NA = np.array([[why in UNREADABLE for why in row] for row in reasons or ()])
    for a in range(attempts):
        count(f"accuracy_attempt{a + 1}", right_NA[:, a])
    if attempts >= 2:
        repaired_N = ~right_NA[:, 0] & right_NA[:, 1]
        count("incorrect_to_correct", repaired_N)
        if reasons is not None:
            form_N = unreadable_NA[:, 0] | truncated_NA[:, 0]
            count("format_repaired", repaired_N & form_N)
            count("answer_repaired", repaired_N & ~form_N)
            # Their sum, which is exact, may differ from the count over n in its last bit.
            share["incorrect_to_correct"] = share["format_repaired"] + share["answer_repaired"]
        count("correct_to_incorrect", right_NA[:, 0] & ~right_NA[:, 1])
        gained, lost = difference("delta", right_NA[:, 1])
        share["delta"] = share["incorrect_to_correct"] - share["correct_to_incorrect"]
        if changed_N is None or changed_N.shape != (n,):
            raise ValueError(f"changed_N must have shape ({n},) where there are two attempts")
        count("changed", changed_N.astype(bool))
        p_value = mcnemar_p(gained, lost)
    if attempts >= 3:
        difference("delta_last", right_NA[:, -1])
    for a in range(attempts):
        count(f"truncated_attempt{a + 1}", truncated_NA[:, a])
        if reasons is not None:
            count(f"unreadable_attempt{a + 1}", unreadable_NA[:, a])
        if lenient_NA is not None:
            count(f"lenient_attempt{a + 1}", np.asarray(lenient_NA, bool)[:, a])

    if reward_NA is not None and not np.array_equal(reward_NA, right_NA):
        for a in range(attempts):
            share[f"reward_attempt{a + 1}"], interval[f"reward_attempt{a + 1}"] = _mean(
                np.asarray(reward_NA, float)[:, a]
            )

    metrics: dict[str, Any] = {"n": n, **share, "interval": interval}
    if attempts >= 2:
        metrics["mcnemar_p"] = p_value
    if reasons is not None:
        metrics["reasons"] = reason_shares(reasons)
    if edit_ratio_N is not None:
        metrics["edit_ratio"] = float(np.mean(edit_ratio_N))
        counts, _ = np.histogram(edit_ratio_N, bins=EDIT_BINS, range=(0.0, 1.0))
        metrics["edit_ratio_histogram"] = counts.tolist()
    return metrics


def wilson_interval(hits: int, n: int) -> Interval:
    """95 % interval of a share; unlike the normal one it stays in [0, 1] and never has width 0.

    Source: Wilson 1927, without continuity correction."""
    z2 = _Z_95 * _Z_95
    centre = (hits + z2 / 2) / (n + z2)
    half = _Z_95 / (n + z2) * math.sqrt(hits * (n - hits) / n + z2 / 4)
    # For 0 or n hits one bound is the share itself; rounding must not move it.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return [low, high]


def paired_bootstrap_interval(gained: int, lost: int, n: int, *, seed: int = 0) -> Interval:
    """95 % percentile interval of (gained - lost) / n, resampling the n problems with replacement.

    Resampling problems draws the counts of gained, lost and unchanged from a multinomial, so the
    counts are drawn directly. With gained == lost == 0 every resample is 0, so both ends are 0:
    read `mcnemar_p` and the intervals of the two shares instead.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, [gained / n, lost / n, (n - gained - lost) / n], size=RESAMPLES)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975])
    return [float(low), float(high)]


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p of the hypothesis that gains and losses are equally likely; 1 without any.

    Source: McNemar 1947, exact binomial form. Computed in whole numbers, so nothing is rounded or
    underflows before the last division."""
    flips = gained + lost
    term = tail = 1
    for k in range(min(gained, lost)):
        term = term * (flips - k) // (k + 1)  # flips over k + 1
        tail += term
    return min(1.0, 2 * tail / 2**flips)


def _mean(value_N: np.ndarray) -> tuple[float, Interval]:
    """The mean and its normal 95 % interval."""
    mean, half = float(value_N.mean()), _Z_95 * float(value_N.std()) / math.sqrt(len(value_N))
    return mean, [mean - half, mean + half]


def _checked(solved_NA: np.ndarray, truncated_NA: np.ndarray) -> np.ndarray:
    solved_NA = np.asarray(solved_NA)
    if solved_NA.ndim != 2 or solved_NA.shape[1] == 0:
        raise ValueError(f"solved_NA must be [problems, attempts], got shape {solved_NA.shape}")
    if np.shape(truncated_NA) != solved_NA.shape:
        raise ValueError(
            f"truncated_NA has shape {np.shape(truncated_NA)}, solved_NA {solved_NA.shape}"
        )
    if len(solved_NA) == 0:
        raise InputError(
            "no problems to evaluate: an accuracy over 0 problems means nothing. "
            "Set config.evaluation.problems to at least 1 and check that the split is not empty."
        )
    if not np.isin(solved_NA, (0, 1)).all():
        bad = solved_NA[~np.isin(solved_NA, (0, 1))][0]
        raise ValueError(f"solved_NA must be 0 or 1 to be counted, got {bad}")
    return solved_NA == 1
