"""Whether what a stage's steps show is more than sampling error.

Two windows: the stage's first BEGIN steps, and the last RECENT. A share's error is the larger of
two: that of so many independent samples, and that of the window's steps, which differ more where
samples are alike (those of one problem are).
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

BEGIN, RECENT = 10, 5  # steps; with fewer than BEGIN no alarm compares
_SIGMAS = 4.0  # a difference this many standard errors from 0 is one: windows are looked at often
_CHANCE = 0.01  # of seeing so few, above which a share may be a healthy one


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The steps of a stage so far, oldest first."""

    rows: Sequence[Mapping[str, Any]]
    samples: int  # of a step, where a row does not say
    problems: int  # of a step

    def recent(self, key: str) -> float | None:
        """Mean of a metric over the last steps; None where none has it."""
        return _mean(self.values(key, self.rows[-RECENT:]))

    def begin(self, key: str) -> float | None:
        """Mean of a metric over the first steps; None where none has it."""
        return _mean(self.values(key, self.rows[:BEGIN]))

    def few(
        self,
        key: str,
        limit: float,
        healthy: float,
        *,
        of_problems: bool = False,
        steps: int = RECENT,
    ) -> bool:
        """Whether a share is below `limit`, and would hardly be if it were really `healthy`."""
        values = self.values(key, self.rows[-steps:])
        if not values or statistics.fmean(values) >= limit:
            return False
        n = len(values) * (self.problems if of_problems else self.samples)
        return _at_most(round(statistics.fmean(values) * n), n, healthy) < _CHANCE

    def above(self, key: str, limit: float, *, share: bool = True) -> bool:
        """Whether a mean of the last steps is above `limit` by more than its error."""
        values = self.values(key, self.rows[-RECENT:])
        if not values:
            return False
        mean = statistics.fmean(values)
        return mean - 3.0 * self._error(values, mean if share else None) > limit

    def fell(self, key: str, factor: float, *, share: bool = True) -> bool:
        """Whether the last steps are below `factor` times the first, by more than their error."""
        return self._moved(key, -1.0, factor, share)

    def rose(self, key: str, factor: float, *, share: bool = True, sigmas: float = _SIGMAS) -> bool:
        """Whether the last steps are above `factor` times the first, by more than their error."""
        return self._moved(key, 1.0, factor, share)

    def improving(self, key: str) -> bool:
        """Whether a share has fallen clearly since the stage's first steps."""
        first, last = (self.values(key, part) for part in (self.rows[:RECENT], self.rows[-RECENT:]))
        return self._differ(last, first, share=True) and statistics.fmean(last) < 0.9 * _some(first)

    def negative(self, key: str, least: float) -> bool:
        """Whether all of the last BEGIN values lie below 0, clearly and by more than `least`."""
        values = self.values(key, self.rows[-BEGIN:])
        if len(values) < BEGIN or max(values) >= 0.0:
            return False
        mean = statistics.fmean(values)
        return mean < -least and mean < -_SIGMAS * self._error(values, None)

    def always(self, key: str, value: float, rows: int = RECENT) -> bool:
        """Whether a metric has exactly this value in the last steps, all of which have it."""
        values = self.values(key, self.rows[-rows:])
        return len(values) == rows and all(v == value for v in values)

    def values(self, key: str, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """The metric's finite values in these rows."""
        found = (row.get(key) for row in rows)
        return [v for v in found if v is not None and math.isfinite(v)]

    def _moved(self, key: str, sign: float, factor: float, share: bool) -> bool:
        first, last = self.values(key, self.rows[:BEGIN]), self.values(key, self.rows[-RECENT:])
        if not first or not last or not statistics.fmean(first):
            return False
        beyond = sign * (statistics.fmean(last) - factor * statistics.fmean(first)) > 0
        return beyond and self._differ(last, first, share=share)

    def _differ(self, last: list[float], first: list[float], *, share: bool) -> bool:
        if not last or not first:
            return False
        pooled = statistics.fmean(last + first) if share else None
        error = math.hypot(self._error(last, pooled), self._error(first, pooled))
        return abs(statistics.fmean(last) - statistics.fmean(first)) > _SIGMAS * error

    def _error(self, values: list[float], share: float | None) -> float:
        """Standard error of the mean of values; share: what their samples' mean is taken to be."""
        seen = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        if share is None:
            return seen
        inside = min(max(share, 0.0), 1.0)
        return max(seen, math.sqrt(inside * (1.0 - inside) / (len(values) * self.samples)))


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _some(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _at_most(k: int, n: int, share: float) -> float:
    """Probability of at most k of n, each with probability `share`."""
    logs = (
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(share)
        + (n - i) * math.log1p(-share)
        for i in range(k + 1)
    )
    return math.fsum(map(math.exp, logs))
