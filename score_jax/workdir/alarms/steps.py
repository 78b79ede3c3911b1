"""Alarms of the steps of an RL stage.

Alarms read the mean of the last RECENT steps; some compare it with the mean of the stage's first
BEGIN steps. So an alarm is raised within RECENT steps and cleared when its cause is gone. The
limits are wide: they find runs that fail, and are not meant for tuning.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from score_jax.workdir.alarms.alarm import Alarm
from score_jax.workdir.alarms.evidence import BEGIN, RECENT, Evidence
from score_jax.workdir.runlog import with_solved

LAST = 200  # steps that are looked back on; beside them the first BEGIN
COPYING, DIFFERING = 0.02, 0.05  # share of samples whose second answer differs: copies; healthy
# The same over BEGIN steps of Stage I, which may dip before it rises: the toy's eight seeds down to
# 0.0084 for 30 steps. What copies for good is at 0.
STAGE1_COPYING = 0.005
TRUNCATED = 0.20  # share of truncated attempts
ENDLESS = 0.95  # share of truncated attempts above which the model hardly ends any
UNREADABLE = 0.30  # share of attempts without an answer that could be compared
GRADER = 0.20  # share of attempts whose grading hung or died
DISAGREEING = 0.20  # share of equal answers to a problem whose rewards differ
KL_PER_TOKEN = 4.0  # nats; the quickstart, with answers of a few tokens, reaches 2
KL_BELOW = 0.05  # nats of an attempt; a KL below -KL_BELOW in all steps is none
LOGP_GAP = {"float32": 0.01, "bfloat16": 0.5}  # by dtype: |sampler - learner| log-prob of a token
HOPELESS, LEARNABLE = 0.005, 0.02  # share of right attempts: almost no signal; enough of one
SOLVED = 0.9  # share of right attempts; above: little left to learn
UNMIXED, MIXED = 0.02, 0.10  # share of problems with samples of different rewards: none; healthy
DRIFT = 0.75  # times the first attempts' accuracy at the beginning; below: it drops
RETURN = 0.5  # times the KL at the beginning; below: the policy comes nearer to the reference
CREEP = 1.5  # times the length at the beginning
LONGER = 2.0  # tokens, at least, more than any attempt had: with a few, one more is none
# Times the entropy at the beginning; below: samples are alike. Of the toy's runs those that learned
# fell to 0.20 before they did, those that copied to 0.08 to 0.20.
ENTROPY = 0.15
NO_GRADIENT = 1e-6  # mean size of an attempt's advantages
ALIKE = 1.3  # times: lengths that did not change
CERTAIN = 20.0  # expected right samples; that there is none has a chance of exp(-20)

Row = TypeVar("Row", bound=Mapping[str, Any])


def of_steps(
    rows: Sequence[Mapping[str, Any]],
    dtype: str = "float32",
    *,
    stage: Mapping[str, Any] | None = None,
    samples: int = 64,
    problems: int = 16,
) -> list[Alarm]:
    """Alarms of one RL stage's steps so far; in the first BEGIN - 1 steps only those of one step.

    Args:
      dtype: config.model.dtype.
      stage: the stage's settings by name, for the advice; None: not known.
      samples, problems: of a step; they say how large sampling error is.
    """
    if not rows:
        return []
    seen = Evidence([with_solved(row) for row in rows], samples, problems)
    found = list(_sampler(seen, dtype))
    if len(rows) >= RECENT:
        found += _form(seen, stage or {})
    if len(rows) >= BEGIN:
        found += _learning(seen, stage or {})
    return found


def looked_at(rows: Sequence[Row]) -> list[Row]:
    """The rows of a stage that `of_steps` needs, however long it is: the first and the last."""
    return [*rows[:BEGIN], *rows[max(BEGIN, len(rows) - LAST) :]]


def _attempts(seen: Evidence) -> list[int]:
    """The attempts that the last steps tell of; the first may be given, and not the policy's."""
    keys = {key for row in seen.rows[-RECENT:] for key in row if key.startswith("solved/attempt")}
    numbers = sorted(int(key.removeprefix("solved/attempt")) for key in keys)
    return [n for n in numbers if seen.recent(f"solved/attempt{n}") is not None]


def _sampler(seen: Evidence, dtype: str) -> Iterator[Alarm]:
    """On the first step too: sampler and learner have the same weights there."""
    gap = seen.recent("logp_gap")
    limit = LOGP_GAP.get(dtype, max(LOGP_GAP.values()))
    if gap is not None and gap > limit and (len(seen.rows) == 1 or len(seen.rows) >= RECENT):
        yield Alarm(
            "logp_gap",
            f"log-probs of sampler and learner differ by {gap:.3g} nats on a token",
            f"Rounding with {dtype} explains at most {limit:g}. The gradient is not that of the "
            "policy that sampled. This is a bug: please report it with config.json.",
        )


def _form(seen: Evidence, stage: Mapping[str, Any]) -> Iterator[Alarm]:
    """What keeps attempts from being graded at all."""
    for attempt in _attempts(seen):
        name, key = f"attempt {attempt}", f"attempt{attempt}"
        cut = seen.recent(f"truncated/{key}") or 0.0
        if seen.above(f"truncated/{key}", TRUNCATED) and not seen.improving(f"truncated/{key}"):
            cost = (
                "Truncated attempts are not learned from."
                if stage.get("truncation") == "mask"
                else "Truncated attempts are not solved, so the policy learns to be short."
            )
            ends = (
                "Hardly any ends: the model may write an end token that its tokenizer does not "
                "name. See in the transcripts what follows the answer, and name a text that ends "
                "an attempt (problems.stop_before, problems.stop_after) or use another "
                "model.template. Otherwise raise rollout.max_attempt_tokens."
                if cut >= ENDLESS
                else "Raise rollout.max_attempt_tokens, or check in the transcripts whether the "
                "model writes its end token."
            )
            what = f"{name} is truncated in {cut:.1%} of the samples"
            yield Alarm(f"truncated_{key}", what, f"{cost} {ends}")
        unreadable = seen.recent(f"unreadable/{key}") or 0.0
        if seen.above(f"unreadable/{key}", UNREADABLE) and not seen.improving(f"unreadable/{key}"):
            yield Alarm(
                f"unreadable_{key}",
                f"{name} has no readable answer in {unreadable:.1%} of the samples",
                "What cannot be read earns 0, whatever it says. The transcripts show what the "
                "model writes: use another problems.prompt or model.template, say the form in "
                "problems.prompt_text, or begin with an SFT stage.",
            )
        for reason in ("timeout", "crash"):
            if seen.above(f"reason/{reason}/{key}", GRADER):
                share = seen.recent(f"reason/{reason}/{key}") or 0.0
                yield Alarm(
                    f"grader_{key}",
                    f"grading {name} ended in a {reason} in {share:.1%} of the samples",
                    "These attempts earn rewards.failed, whatever they say. Check that the grader "
                    "works on this machine (programs: the sandbox), and its limits in "
                    "config.rewards.",
                )
    if seen.above("inconsistent", DISAGREEING):
        yield Alarm(
            "reward_ignores_input",
            "equal answers to a problem earn different rewards in "
            f"{seen.recent('inconsistent'):.1%} of the samples that have an equal one",
            "The reward depends on something else than the answer. Check the reward function with "
            "the transcripts: the same text must earn the same.",
        )


def _learning(seen: Evidence, stage: Mapping[str, Any]) -> Iterator[Alarm]:
    """What the numbers of at least BEGIN steps say about learning."""
    attempts = _attempts(seen)
    dead, constant = _grader_died(seen, attempts), _constant_reward(seen, attempts)
    if dead:
        yield Alarm(
            "grader",
            "no attempt is right any more, from one step to the next, while the texts are as "
            "before",
            "The grader stopped working rather than the policy: grade an answer that was right "
            "before, and check what the grader needs (its model, service, files or sandbox).",
        )
    if constant is not None:
        yield Alarm(
            "reward_ignores_input",
            f"every attempt earned {constant:g} since the stage began",
            "There is nothing to learn from: the reward does not depend on the answer, or the "
            "problems are all solved. Grade a wrong answer with it.",
        )
    early = bool(stage) and not stage.get("reward_attempt1", 1.0)
    limit, steps = (STAGE1_COPYING, BEGIN) if early else (COPYING, RECENT)
    if seen.few("changed", limit, DIFFERING, steps=steps) and 2 in attempts:
        yield Alarm(
            "copying",
            f"second attempts repeat the first in {1 - (seen.recent('changed') or 0.0):.1%} of "
            "the samples",
            _of_copying(stage),
        )
    if seen.fell("solved/attempt1", DRIFT) and not dead and not _returning(seen):
        before, now = (x("solved/attempt1") or 0.0 for x in (seen.begin, seen.recent))
        yield Alarm(
            "first_attempt_drift",
            f"accuracy of attempt 1 fell to {now:.1%}, from {before:.1%} at the start of the stage",
            _of_drift(stage),
        )
    for attempt in attempts:
        yield from _of_attempt(seen, stage, attempt, dead or constant is not None)


def _of_attempt(
    seen: Evidence, stage: Mapping[str, Any], attempt: int, no_signal: bool
) -> Iterator[Alarm]:
    """no_signal: whether an alarm says already that rewards tell nothing."""
    name, key = f"attempt {attempt}", f"attempt{attempt}"
    beta = f"kl_attempt{1 if attempt <= stage.get('early_attempts', 1) else 2}"
    solved, reward = seen.recent(f"solved/{key}") or 0.0, seen.recent(f"reward/{key}")
    # Rewards between 0 and 1 teach where no attempt counts as right.
    graded = reward is not None and abs(reward - solved) > 1e-6
    hopeless = seen.few(f"solved/{key}", HOPELESS, LEARNABLE) and not graded
    if hopeless and not no_signal:
        yield Alarm(
            f"hopeless_{key}",
            f"accuracy of {name} is only {solved:.1%}",
            "If all samples are wrong, there is nothing to learn from. Use easier problems, or "
            "check in the transcripts whether right answers are graded as wrong.",
        )
    yield from _of_kl(seen, attempt, beta)
    short, length = (x(f"length/{key}") or 0.0 for x in (seen.begin, seen.recent))
    # As long as another attempt was is none: it may begin as a word that keeps the first answer.
    usual = max(seen.begin(f"length/attempt{n}") or 0.0 for n in (1, attempt))
    if seen.rose(f"length/{key}", CREEP, share=False) and length > usual + LONGER:
        favours = "normalizer='sequence' or 'constant' does not favour long attempts; "
        yield Alarm(
            f"length_{key}",
            f"{name} has {length:.0f} tokens, up from {short:.0f} at the start of the stage",
            "Responses are getting longer. Check the transcripts for why. "
            f"{favours if stage.get('normalizer', 'token') == 'token' else ''}"
            "truncation='penalty' penalises them.",
        )
    if solved >= SOLVED or hopeless or no_signal or (solved < HOPELESS and not graded):
        return  # all samples have one reward, so the alarms below would repeat that
    if seen.few(f"mixed/{key}", UNMIXED, MIXED, of_problems=True):
        mixed = seen.recent(f"mixed/{key}") or 0.0
        yield Alarm(
            f"unmixed_{key}",
            f"only {mixed:.1%} of the problems have samples of different rewards at {name}",
            "If all samples of a problem have the same reward, their advantages are 0. Raise "
            "rollout.samples_per_problem or rollout.temperature, or use problems that are neither "
            "too easy nor too hard.",
        )
    if seen.fell(f"entropy/{key}", ENTROPY, share=False):
        first, entropy = (x(f"entropy/{key}") or 0.0 for x in (seen.begin, seen.recent))
        yield Alarm(
            f"entropy_{key}",
            f"entropy of {name} fell to {entropy:.3g} nats per token, from {first:.3g} at the "
            "start of the stage",
            "Entropy collapsed while accuracy is still low, so samples explore little. Lower the "
            f"learning rate, or raise {beta}.",
        )
    advantage = seen.recent(f"advantage/{key}")
    # Stage I does not train attempt 1; later attempts are always trained.
    if attempt > 1 and advantage is not None and advantage < NO_GRADIENT:
        masks = ", and whether truncation='mask' masks all attempts"
        yield Alarm(
            f"no_gradient_{key}",
            f"{name} has no gradient: its mean absolute advantage is {advantage:.1g}",
            "Nothing trains this attempt. Check the stage's reward_attempt2, bonus and baseline"
            f"{masks if stage.get('truncation', 'mask') == 'mask' else ''}.",
        )


def _of_kl(seen: Evidence, attempt: int, beta: str) -> Iterator[Alarm]:
    key = f"attempt{attempt}"
    kl, length = seen.recent(f"kl/{key}"), seen.recent(f"length/{key}")
    if kl is not None and length and kl / length > KL_PER_TOKEN:
        yield Alarm(
            f"kl_{key}",
            f"KL of attempt {attempt} to the reference is {kl / length:.2f} nats per token",
            "The policy is far from the reference, and its text may degenerate. Raise "
            f"{beta}, or lower the learning rate.",
        )
    wrong = (
        "A KL is positive where the policy differs from the reference, so the estimate is wrong, "
        f"and {beta} holds nothing. Check which checkpoint is the stage's reference. With the "
        "run's own settings this is a bug: please report it with config.json."
    )
    if seen.negative(f"kl/{key}", KL_BELOW):
        what = f"KL of attempt {attempt} to the reference is {kl:.3g} nats, below 0 in every step"
        yield Alarm(f"kl_estimate_{key}", what, wrong)
    trained = all((seen.recent(name) or 0.0) > 0.0 for name in ("grad_norm", "learning_rate"))
    if trained and length and seen.always(f"kl/{key}", 0.0, BEGIN):
        what = f"KL of attempt {attempt} to the reference stays 0 while the policy is trained"
        yield Alarm(f"kl_estimate_{key}", what, wrong)


def _returning(seen: Evidence) -> bool:
    """Whether first attempts go back to the reference: a second Stage I takes back a Stage II."""
    before, now = seen.begin("kl/attempt1"), seen.recent("kl/attempt1")
    return before is not None and now is not None and now < RETURN * before


def _grader_died(seen: Evidence, attempts: Sequence[int]) -> bool:
    """Whether all attempts became wrong from one step to the next, at the lengths they had."""
    for n in attempts:
        solved = seen.values(f"solved/attempt{n}", seen.rows)
        wrong = next((i for i, v in enumerate(reversed(solved)) if v), len(solved))
        before = solved[: len(solved) - wrong][-RECENT:]
        # So many wrong samples in a row are no chance, and accuracy had not sunk before.
        if not before or wrong * seen.samples * statistics.fmean(before) < CERTAIN:
            return False
        if statistics.fmean(before) < DRIFT * (seen.begin(f"solved/attempt{n}") or 0.0):
            return False
        length, was = seen.recent(f"length/attempt{n}"), seen.begin(f"length/attempt{n}")
        if length is None or was is None or not was / ALIKE <= length <= was * ALIKE:
            return False
    return bool(attempts)


def _constant_reward(seen: Evidence, attempts: Sequence[int]) -> float | None:
    """The reward of all attempts of the whole stage, if they all earned the same, other than 0."""
    if not attempts or (len(attempts) > 1 and seen.few("changed", COPYING, DIFFERING)):
        return None
    value = seen.rows[-1].get(f"reward/attempt{attempts[0]}")
    if not value:
        return None
    for n in attempts:
        earned = seen.values(f"reward/attempt{n}", seen.rows)
        if len(earned) != len(seen.rows) or any(v != value for v in earned):
            return None
        mixed = seen.values(f"mixed/attempt{n}", seen.rows)
        if not mixed or any(mixed):
            return None
    return float(value)


def _of_copying(stage: Mapping[str, Any]) -> str:
    copies = "The policy copies its first answer, so it cannot learn to correct."
    if not stage or stage.get("bonus"):
        return (
            f"{copies} Train Stage I until second answers differ (metric `changed`), or raise the "
            "bonus."
        )
    if not stage.get("reward_attempt1", 1.0):
        return (
            f"{copies} In this stage second answers must begin to differ (metric `changed`): "
            "train it longer, raise its learning_rate or rollout.temperature, or let a base stage "
            "show revisions."
        )
    return (
        f"{copies} Nothing in this stage rewards a change: train a Stage I before it "
        "(reward_attempt1=0, kl_attempt1=0.1), and set its bonus."
    )


def _of_drift(stage: Mapping[str, Any]) -> str:
    now = f" (now {stage['kl_attempt1']:g})" if "kl_attempt1" in stage else ""
    if stage and not stage.get("reward_attempt1", 1.0):
        return (
            "This stage does not reward first attempts; kl_attempt1 alone holds them. Raise it"
            f"{now}."
        )
    discount = " and set discount to 0" if stage.get("discount") else ""
    if not stage:
        discount = " and keep discount at 0"
    return (
        "The policy gives up first attempts in favour of second ones. Raise kl_attempt1"
        f"{now}{',' if discount else ''}{discount}."
    )
