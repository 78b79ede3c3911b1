"""Signs that a stage goes wrong, read off its metrics: what is seen, and what to do about it.

    of_steps(rows, dtype) -> list[Alarm]          rows of metrics.jsonl of one RL stage
    of_evaluations(base, after) -> list[Alarm]    two evaluations with their intervals

Each looks at the mean of the last RECENT steps, some beside that of the stage's first BEGIN, so
that an alarm comes within RECENT steps and goes out when its cause is gone. The limits are wide:
they are for runs that go nowhere, not for tuning.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BEGIN, RECENT = 10, 5  # steps; fewer than BEGIN say nothing yet
COPYING = 0.02  # share of samples whose second answer differs; below: it is a copy
TRUNCATED = 0.20  # share of attempts cut off
KL_PER_TOKEN = 4.0  # nats; the quickstart, whose answers are a few tokens, reaches 2
LOGP_GAP = {"float32": 0.01, "bfloat16": 0.5}  # by dtype: sampler against learner
HOPELESS = 0.005  # share of right attempts; below: there is next to nothing to learn from
SOLVED = 0.95  # share of right attempts; above: there is next to nothing left to learn
UNMIXED = 0.02  # share of problems with both right and wrong samples; below: nothing to compare
DRIFT = 0.75  # of the right first attempts at the beginning; below: they are being given up
CREEP = 1.5  # times the length at the beginning
ENTROPY = 0.2  # of the entropy at the beginning; below, samples of a problem are alike
NO_GRADIENT = 1e-6  # mean size of an attempt's advantages


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One sign."""

    name: str  # which sign, the same in every step
    what: str  # what was seen, with its number
    advice: str  # what it means and what to try


def of_steps(rows: Sequence[Mapping[str, Any]], dtype: str = "float32") -> list[Alarm]:
    """Alarms of one RL stage's steps so far; none before BEGIN.

    Args:
      dtype: of the model's matmuls, as config.model.dtype.
    """
    if len(rows) < BEGIN:
        return []
    begin, recent = _Means(rows[:BEGIN]), _Means(rows[-RECENT:])
    return [
        *_copying(recent),
        *_drift(begin, recent),
        *_each_attempt(begin, recent),
        *_gap(recent, dtype),
    ]


def of_evaluations(base: Mapping[str, Any], after: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of an RL stage's evaluation, beside the base model's; both of metrics.py."""
    found = []
    before_low = base["interval"]["accuracy_attempt1"][0]
    if after["interval"]["accuracy_attempt1"][1] < before_low:
        found.append(
            Alarm(
                "first_attempt_lost",
                f"first attempts are right in {after['accuracy_attempt1']:.1%}, the base model's "
                f"in {base['accuracy_attempt1']:.1%}",
                "The first attempt has been given up. Raise kl_attempt1, in Stage I above all.",
            )
        )
    if "delta" in after and after["interval"]["delta"][1] < 0:
        found.append(
            Alarm(
                "negative_delta",
                f"second attempts are worse than first ones (Δ {after['delta']:+.1%})",
                "Correction breaks more than it fixes. Train Stage I longer, or raise the bonus.",
            )
        )
    return found


class _Means:
    """Means over the rows at hand."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]):
        self._rows = rows

    def of(self, key: str) -> float | None:
        """None where no row has the key."""
        values = [row[key] for row in self._rows if row.get(key) is not None]
        return statistics.fmean(values) if values else None


def _copying(recent: _Means) -> Iterator[Alarm]:
    changed = recent.of("changed")
    if changed is not None and changed < COPYING and recent.of("reward/attempt2") is not None:
        yield Alarm(
            "copying",
            f"second attempts repeat the first in {1 - changed:.1%} of the samples",
            "The policy copies: correction is not learned any more. Start from a Stage I that "
            "makes second attempts differ, or raise the bonus.",
        )


def _drift(begin: _Means, recent: _Means) -> Iterator[Alarm]:
    before, now = begin.of("reward/attempt1"), recent.of("reward/attempt1")
    if before and now is not None and now < DRIFT * before:
        yield Alarm(
            "first_attempt_drift",
            f"first attempts are right in {now:.1%} of the samples, at the stage's beginning in "
            f"{before:.1%}",
            "First attempts are being given up for what comes after. Raise kl_attempt1, and keep "
            "discount at 0.",
        )


def _each_attempt(begin: _Means, recent: _Means) -> Iterator[Alarm]:
    attempt = 1
    while (reward := recent.of(f"reward/attempt{attempt}")) is not None:
        yield from _one_attempt(begin, recent, attempt, reward)
        attempt += 1


def _one_attempt(begin: _Means, recent: _Means, attempt: int, reward: float) -> Iterator[Alarm]:
    name, key = f"attempt {attempt}", f"attempt{attempt}"
    if reward < HOPELESS:
        yield Alarm(
            f"hopeless_{key}",
            f"{name} is right in {reward:.1%} of the samples",
            "Samples that all earn nothing teach nothing. Take easier problems, or look in "
            "the transcripts whether right answers are graded as such.",
        )
    truncated = recent.of(f"truncated/{key}") or 0.0
    if truncated > TRUNCATED:
        yield Alarm(
            f"truncated_{key}",
            f"{name} is cut off in {truncated:.1%} of the samples",
            "What is cut off earns nothing. Raise rollout.max_attempt_tokens, or look in the "
            "transcripts whether attempts end at all.",
        )
    kl, length = recent.of(f"kl/{key}"), recent.of(f"length/{key}")
    if kl is not None and length and kl / length > KL_PER_TOKEN:
        yield Alarm(
            f"kl_{key}",
            f"{name} is {kl / length:.2f} nats per token away from the base model",
            f"The policy has left its language. Raise kl_attempt{min(attempt, 2)}, or lower "
            "the learning rate.",
        )
    short = begin.of(f"length/{key}")
    if length and short and length > CREEP * short:
        yield Alarm(
            f"length_{key}",
            f"{name} is {length:.0f} tokens long, at the stage's beginning {short:.0f}",
            "Attempts grow. Look in the transcripts what with; normalizer 'sequence' or 'constant' "
            "pays no longer attempts more, and truncation='penalty' pays them less.",
        )
    if not HOPELESS <= reward < SOLVED:
        return  # all samples earn the same, and that is no failure of its own
    mixed = recent.of(f"mixed/{key}")
    if mixed is not None and mixed < UNMIXED:
        yield Alarm(
            f"unmixed_{key}",
            f"the samples of a problem differ in reward at {name} in {mixed:.1%} of the problems",
            "Samples that earn the same teach nothing. Raise rollout.samples_per_problem or the "
            "temperature, or take problems that are neither too easy nor too hard.",
        )
    first, entropy = begin.of(f"entropy/{key}"), recent.of(f"entropy/{key}")
    if first and entropy is not None and entropy < ENTROPY * first:
        yield Alarm(
            f"entropy_{key}",
            f"the entropy of {name} is {entropy:.3g} nats a token, at the stage's beginning "
            f"{first:.3g}",
            "The policy makes up its mind while it is still often wrong, and soon has nothing to "
            "explore with. Lower the learning rate, or raise the KL coefficient.",
        )
    advantage = recent.of(f"advantage/{key}")
    # Attempt 1 is often not to be trained (Stage I); later ones always are.
    if attempt > 1 and advantage is not None and advantage < NO_GRADIENT:
        yield Alarm(
            f"no_gradient_{key}",
            f"{name} has no gradient: all its advantages are {advantage:.1g}",
            "Nothing trains this attempt. Look at the stage's reward_attempt2, bonus and baseline, "
            "and whether truncation='mask' masks all of it.",
        )


def _gap(recent: _Means, dtype: str) -> Iterator[Alarm]:
    gap = recent.of("logp_gap")
    limit = LOGP_GAP.get(dtype, max(LOGP_GAP.values()))
    if gap is not None and gap > limit:
        yield Alarm(
            "logp_gap",
            f"sampler and learner differ by {gap:.3g} nats on a token",
            f"With {dtype} at most {limit:g} is rounding. The gradient is of another policy than "
            "the one that sampled: please report it with the config.",
        )
