"""Metrics over several samples of a problem: majority votes, averages, pass@k.

A vote is over stated answers. A sample without an answer (`None`) does not vote.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_jax.evaluation.metrics import RESAMPLES, Interval


def majority(answers: Sequence[str | None]) -> int:
    """Position of the first sample with the most frequent answer; 0 if there are no answers.

    Ties go to the answer that comes first."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0
    most = max(votes.values())
    return next(i for i, answer in enumerate(answers) if votes.get(answer or "", 0) == most)


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Probability that at least one of k samples, drawn without replacement, is right.

    Unbiased for k fresh samples.  Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def sampled_metrics(solved_NGA: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Averages over the G samples of each of N problems (avg@G), and pass@k of each attempt.

    Returns: `samples`, `accuracy_attempt1` …, `delta` (attempt 2 minus attempt 1), their intervals
      by a bootstrap over problems, and `pass_attempt1` …: {k: pass@k} for k = 1, 2, 4, … G.
    """
    problems, samples, attempts = solved_NGA.shape
    mean_NA = solved_NGA.mean(axis=1)
    found: dict[str, Any] = {"n": problems, "samples": samples}
    values = {f"accuracy_attempt{a + 1}": mean_NA[:, a] for a in range(attempts)}
    if attempts > 1:
        values["delta"] = mean_NA[:, 1] - mean_NA[:, 0]
    found |= {name: float(value_N.mean()) for name, value_N in values.items()}
    found["interval"] = {
        name: bootstrap_interval(value_N, seed=seed) for name, value_N in values.items()
    }
    for a in range(attempts):
        right_N = solved_NGA[:, :, a].sum(axis=1).astype(int).tolist()
        found[f"pass_attempt{a + 1}"] = {
            str(k): float(np.mean([pass_at_k(right, samples, k) for right in right_N]))
            for k in doublings(samples)
        }
    return found


def doublings(most: int) -> list[int]:
    """1, 2, 4, … up to `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def bootstrap_interval(value_N: np.ndarray, *, seed: int = 0) -> Interval:
    """95 % percentile interval of a mean over problems, resampling problems."""
    draw = np.random.default_rng(seed)
    # Values repeat (each is a mean of G zeros and ones), so counts of values are drawn.
    distinct, counts = np.unique(value_N, return_counts=True)
    drawn = draw.multinomial(len(value_N), counts / len(value_N), size=RESAMPLES)
    low, high = np.quantile(drawn @ distinct / len(value_N), [0.025, 0.975])
    return [float(low), float(high)]
