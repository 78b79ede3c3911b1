"""Alarms: signs in a stage's metrics that training goes wrong, and what to do about each.

    of_steps(rows, dtype) -> list[Alarm]          rows of metrics.jsonl of one RL stage
    of_base(base) -> list[Alarm]                  the base model's evaluation, before any RL step
    of_evaluations(base, after) -> list[Alarm]    two evaluations with their intervals

Alarms of steps read the mean of the last RECENT steps; some compare it with the mean of the stage's
first BEGIN steps. So an alarm is raised within RECENT steps and cleared when its cause is gone. The
limits are wide: they find runs that fail, and are not meant for tuning.
"""

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from score_jax.workdir.runlog import with_solved

BEGIN, RECENT = 10, 5  # steps; with fewer than BEGIN no alarm is raised
COPYING = 0.02  # share of samples whose second answer differs; below: copies
TRUNCATED = 0.20  # share of truncated attempts
KL_PER_TOKEN = 4.0  # nats; the quickstart, with answers of a few tokens, reaches 2
LOGP_GAP = {"float32": 0.01, "bfloat16": 0.5}  # by dtype: |sampler - learner| log-prob of a token
MOSTLY = 0.5  # share of the base model's attempts that are truncated or unreadable
HOPELESS = 0.005  # share of right attempts; below: almost no signal
SOLVED = 0.95  # share of right attempts; above: almost nothing left to learn
UNMIXED = 0.02  # share of problems with samples of different rewards; below: no signal
DRIFT = 0.75  # times the first attempts' accuracy at the beginning; below: it drops
CREEP = 1.5  # times the length at the beginning
ENTROPY = 0.2  # times the entropy at the beginning; below: samples are alike
NO_GRADIENT = 1e-6  # mean size of an attempt's advantages

_Means = Callable[[str], float | None]  # of metrics by name, over some steps


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One alarm."""

    name: str  # the same in every step
    what: str  # what happened, with its number
    advice: str  # what it means and what to try


def of_steps(rows: Sequence[Mapping[str, Any]], dtype: str = "float32") -> list[Alarm]:
    """Alarms of one RL stage's steps so far; none in the first BEGIN - 1 steps.

    Args:
      dtype: config.model.dtype.
    """
    if len(rows) < BEGIN:
        return []
    begin, recent = (
        functools.partial(_mean, list(map(with_solved, part)))
        for part in (rows[:BEGIN], rows[-RECENT:])
    )
    return list(_found(begin, recent, dtype))


def of_base(base: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of a base model most of whose attempts are truncated or have no readable answer."""
    keys = (key for key in base if key.startswith("accuracy_attempt"))
    return [alarm for key in keys for alarm in _of_base(base, key.removeprefix("accuracy_attempt"))]


def of_evaluations(base: Mapping[str, Any], after: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of an RL stage's evaluation, compared with the base model's; both by metrics.py."""
    found = []
    before_low = base["interval"]["accuracy_attempt1"][0]
    if after["interval"]["accuracy_attempt1"][1] < before_low:
        found.append(
            Alarm(
                "first_attempt_lost",
                f"accuracy of attempt 1 is {after['accuracy_attempt1']:.1%}, below the base "
                f"model's {base['accuracy_attempt1']:.1%}",
                "Training made first attempts worse. Raise kl_attempt1, above all in Stage I.",
            )
        )
    if "delta" in after and after["interval"]["delta"][1] < 0:
        found.append(
            Alarm(
                "negative_delta",
                f"second attempts are worse than first attempts (Δ {after['delta']:+.1%})",
                "Revisions break more answers than they fix. Train Stage I longer, or raise the "
                "bonus.",
            )
        )
    return found


def _of_base(base: Mapping[str, Any], attempt: str) -> Iterator[Alarm]:
    cut, unreadable, right, leniently = (
        base.get(f"{name}_attempt{attempt}", 0.0)
        for name in ("truncated", "unreadable", "accuracy", "lenient")
    )
    if cut + unreadable < MOSTLY:
        return
    leniently = max(leniently, right)
    known = f"Graded leniently {leniently:.1%} of the answers are right, strictly {right:.1%}."
    # Both alarms only where neither cause is small beside the other.
    if 2 * cut >= unreadable:
        yield Alarm(
            f"base_truncated_attempt{attempt}",
            f"attempt {attempt} of the base model is truncated in {cut:.1%} of the problems",
            f"{known} Truncated attempts are not solved, so RL would learn to be short before it "
            "learns the task. Raise rollout.max_attempt_tokens. If the transcripts show text after "
            "the answer, the model does not write its end token: name a text that ends an attempt "
            "(problems.stop_before, problems.stop_after), or use another model.template or prompt.",
        )
    if 2 * unreadable >= cut:
        yield Alarm(
            f"base_unreadable_attempt{attempt}",
            f"attempt {attempt} of the base model has no readable answer in {unreadable:.1%} of "
            "the problems",
            f"{known} RL would learn the form of an answer before it learns the task. Use another "
            "problems.prompt or model.template, say the form in problems.prompt_text, or begin "
            "with an SFT stage. The transcripts show what the model writes.",
        )


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean of a metric; None where no row has it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return statistics.fmean(values) if values else None


def _found(begin: _Means, recent: _Means, dtype: str) -> Iterator[Alarm]:
    changed = recent("changed")
    if changed is not None and changed < COPYING and recent("solved/attempt2") is not None:
        yield Alarm(
            "copying",
            f"second attempts repeat the first in {1 - changed:.1%} of the samples",
            "The policy copies its first answer, so it cannot learn to correct. Train Stage I "
            "until second answers differ (metric `changed`), or raise the bonus.",
        )
    before, now = begin("solved/attempt1"), recent("solved/attempt1")
    if before and now is not None and now < DRIFT * before:
        yield Alarm(
            "first_attempt_drift",
            f"accuracy of attempt 1 fell to {now:.1%}, from {before:.1%} at the start of the stage",
            "The policy gives up first attempts in favour of second ones. Raise kl_attempt1, and "
            "keep discount at 0.",
        )
    for attempt in itertools.count(1):
        solved = recent(f"solved/attempt{attempt}")
        if solved is None:
            break
        yield from _of_attempt(begin, recent, attempt, solved)
    gap = recent("logp_gap")
    limit = LOGP_GAP.get(dtype, max(LOGP_GAP.values()))
    if gap is not None and gap > limit:
        yield Alarm(
            "logp_gap",
            f"log-probs of sampler and learner differ by {gap:.3g} nats on a token",
            f"Rounding with {dtype} explains at most {limit:g}. The gradient is not that of the "
            "policy that sampled. This is a bug: please report it with config.json.",
        )


def _of_attempt(begin: _Means, recent: _Means, attempt: int, solved: float) -> Iterator[Alarm]:
    name, key = f"attempt {attempt}", f"attempt{attempt}"
    reward = recent(f"reward/{key}")
    # Rewards between 0 and 1 teach where no attempt counts as right.
    graded = reward is not None and abs(reward - solved) > 1e-6
    if solved < HOPELESS and not graded:
        yield Alarm(
            f"hopeless_{key}",
            f"accuracy of {name} is only {solved:.1%}",
            "If all samples are wrong, there is nothing to learn from. Use easier problems, or "
            "check in the transcripts whether right answers are graded as wrong.",
        )
    truncated = recent(f"truncated/{key}") or 0.0
    if truncated > TRUNCATED:
        yield Alarm(
            f"truncated_{key}",
            f"{name} is truncated in {truncated:.1%} of the samples",
            "Truncated attempts have reward 0. Raise rollout.max_attempt_tokens, or check in the "
            "transcripts whether the model writes its end token.",
        )
    kl, length = recent(f"kl/{key}"), recent(f"length/{key}")
    if kl is not None and length and kl / length > KL_PER_TOKEN:
        yield Alarm(
            f"kl_{key}",
            f"KL of {name} to the reference is {kl / length:.2f} nats per token",
            f"The policy is far from the reference, and its text may degenerate. Raise "
            f"kl_attempt{min(attempt, 2)}, or lower the learning rate.",
        )
    short = begin(f"length/{key}")
    if length and short and length > CREEP * short:
        yield Alarm(
            f"length_{key}",
            f"{name} has {length:.0f} tokens, up from {short:.0f} at the start of the stage",
            "Responses are getting longer. Check the transcripts for why. normalizer='sequence' or "
            "'constant' does not favour long attempts; truncation='penalty' penalises them.",
        )
    if solved >= SOLVED or (solved < HOPELESS and not graded):
        return  # all samples have one reward, so the alarms below would repeat that
    mixed = recent(f"mixed/{key}")
    if mixed is not None and mixed < UNMIXED:
        yield Alarm(
            f"unmixed_{key}",
            f"only {mixed:.1%} of the problems have samples of different rewards at {name}",
            "If all samples of a problem have the same reward, their advantages are 0. Raise "
            "rollout.samples_per_problem or rollout.temperature, or use problems that are neither "
            "too easy nor too hard.",
        )
    first, entropy = begin(f"entropy/{key}"), recent(f"entropy/{key}")
    if first and entropy is not None and entropy < ENTROPY * first:
        yield Alarm(
            f"entropy_{key}",
            f"entropy of {name} fell to {entropy:.3g} nats per token, from {first:.3g} at the "
            "start of the stage",
            "Entropy collapsed while accuracy is still low, so samples explore little. Lower the "
            f"learning rate, or raise kl_attempt{min(attempt, 2)}.",
        )
    advantage = recent(f"advantage/{key}")
    # Stage I does not train attempt 1; later attempts are always trained.
    if attempt > 1 and advantage is not None and advantage < NO_GRADIENT:
        yield Alarm(
            f"no_gradient_{key}",
            f"{name} has no gradient: its mean absolute advantage is {advantage:.1g}",
            "Nothing trains this attempt. Check the stage's reward_attempt2, bonus and baseline, "
            "and whether truncation='mask' masks all attempts.",
        )
