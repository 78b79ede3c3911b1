"""Signs that a stage goes wrong, read off its metrics: what is seen, and what to do about it.

    of_steps(rows, dtype) -> list[Alarm]          rows of metrics.jsonl of one RL stage
    of_evaluations(base, after) -> list[Alarm]    two evaluations with their intervals

Each looks at the last tenth of the steps there are, ten at least, so that an alarm goes out when
its cause is gone. The limits are wide: they are for runs that go nowhere, not for tuning.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MIN_STEPS = 10  # fewer say nothing yet
COPYING = 0.02  # share of samples whose second answer differs; below: it is a copy
TRUNCATED = 0.20  # share of attempts cut off
KL_PER_TOKEN = 4.0  # nats; the quickstart, whose answers are a few tokens, reaches 2
LOGP_GAP = {"float32": 0.01, "bfloat16": 0.5}  # by dtype: sampler against learner
HOPELESS = 0.005  # share of right attempts; below: there is next to nothing to learn from


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One sign."""

    what: str  # what was seen, with its number
    advice: str  # what it means and what to try


def of_steps(rows: Sequence[Mapping[str, Any]], dtype: str = "float32") -> list[Alarm]:
    """Alarms of one RL stage's steps so far; none before MIN_STEPS.

    Args:
      dtype: of the model's matmuls, as config.model.dtype.
    """
    if len(rows) < MIN_STEPS:
        return []
    recent = _Recent(rows[-max(MIN_STEPS, len(rows) // 10) :])
    return [*_copying(recent), *_each_attempt(recent), *_gap(recent, dtype)]


def of_evaluations(base: Mapping[str, Any], after: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of an RL stage's evaluation, beside the base model's; both of metrics.py."""
    found = []
    before_low = base["interval"]["accuracy_attempt1"][0]
    if after["interval"]["accuracy_attempt1"][1] < before_low:
        found.append(
            Alarm(
                f"first attempts are right in {after['accuracy_attempt1']:.1%}, the base model's "
                f"in {base['accuracy_attempt1']:.1%}",
                "The first attempt has been given up. Raise kl_attempt1, in Stage I above all.",
            )
        )
    if "delta" in after and after["interval"]["delta"][1] < 0:
        found.append(
            Alarm(
                f"second attempts are worse than first ones (Δ {after['delta']:+.1%})",
                "Correction breaks more than it fixes. Train Stage I longer, or raise the bonus.",
            )
        )
    return found


class _Recent:
    """Means over the rows at hand."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self._rows = rows

    def mean(self, key: str) -> float | None:
        """None where no row has the key."""
        values = [row[key] for row in self._rows if row.get(key) is not None]
        return statistics.fmean(values) if values else None


def _copying(recent: _Recent) -> Iterator[Alarm]:
    changed = recent.mean("changed")
    if changed is not None and changed < COPYING and recent.mean("reward/attempt2") is not None:
        yield Alarm(
            f"second attempts repeat the first in {1 - changed:.1%} of the samples",
            "The policy copies: correction is not learned any more. Start from a Stage I that "
            "makes second attempts differ, or raise the bonus.",
        )


def _each_attempt(recent: _Recent) -> Iterator[Alarm]:
    attempt = 1
    while (reward := recent.mean(f"reward/attempt{attempt}")) is not None:
        name = f"attempt {attempt}"
        if reward < HOPELESS:
            yield Alarm(
                f"{name} is right in {reward:.1%} of the samples",
                "Samples that all earn nothing teach nothing. Take easier problems, or look in "
                "the transcripts whether right answers are graded as such.",
            )
        truncated = recent.mean(f"truncated/attempt{attempt}") or 0.0
        if truncated > TRUNCATED:
            yield Alarm(
                f"{name} is cut off in {truncated:.1%} of the samples",
                "What is cut off earns nothing. Raise rollout.max_attempt_tokens, or look in the "
                "transcripts whether attempts end at all.",
            )
        kl, length = recent.mean(f"kl/attempt{attempt}"), recent.mean(f"length/attempt{attempt}")
        if kl is not None and length and kl / length > KL_PER_TOKEN:
            yield Alarm(
                f"{name} is {kl / length:.2f} nats per token away from the base model",
                f"The policy has left its language. Raise kl_attempt{min(attempt, 2)}, or lower "
                "the learning rate.",
            )
        attempt += 1


def _gap(recent: _Recent, dtype: str) -> Iterator[Alarm]:
    gap = recent.mean("logp_gap")
    limit = LOGP_GAP.get(dtype, max(LOGP_GAP.values()))
    if gap is not None and gap > limit:
        yield Alarm(
            f"sampler and learner differ by {gap:.3g} nats on a token",
            f"With {dtype} at most {limit:g} is rounding. The gradient is of another policy than "
            "the one that sampled: please report it with the config.",
        )
