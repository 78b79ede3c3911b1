"""From sampled rows to rewards: fetch this process's rows, decode their texts, grade them.

    own = own_rows(experiment, sampled, problems)     waits for the device
    grades = grade(experiment, own)                   waits for the graders
    own.in_order(values)                              one value a row, of all processes' rows

Training, evaluation, scaling and the collection of documents all grade through here. Suffix N: the
rows of a batch that belong to this process (runtime/hosts.py).
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np

from score_jax.config.settings import RewardSettings, Settings
from score_jax.experiment import Experiment
from score_jax.problem import InputError, Problem
from score_jax.rewards import grader, selective, serving
from score_jax.rewards.functions import Limits, Rows
from score_jax.rewards.terms import Term, Terms
from score_jax.runtime import hosts
from score_jax.structs import Episode

T = TypeVar("T")

EXPECTED = ("truncated", "no_answer", "unparseable", "timeout", "crash", "refused")
# Nothing that could be compared, for its form and not for what it says.
UNREADABLE = ("no_answer", "no_program", "unparseable", "syntax", "too_long", "refused")
_NAMED = 30  # of an attempt's other reasons, the most frequent; a function may make up one a text


@dataclasses.dataclass(frozen=True)
class OwnRows:
    """The rows of a batch that this process grades."""

    row_N: np.ndarray  # their numbers in the batch
    rows: Episode  # [N, ...] numpy
    problems: list[Problem]  # [N]
    texts: list[list[str]]  # [N][A], what the attempts say

    def in_order(self, value_N: Sequence[T]) -> list[T]:
        """The values of all processes' rows, in the order of the batch; JSON-able."""
        return hosts.in_order(self.row_N, value_N)


def prepare(settings: Settings, problems: Sequence[Problem]) -> str:
    """Checks that these problems can be graded; starts what grading needs. See grader.prepare."""
    rewards = settings.rewards
    return grader.prepare(
        problems,
        attempts=settings.rollout.attempts,
        paid=terms_of(rewards),
        sandbox_kind=rewards.sandbox,
        allow_unsandboxed=rewards.allow_unsandboxed,
        bad_golds=settings.problems.bad_golds,
        program_sec=rewards.program_timeout_sec,
        packages=rewards.packages,
    )


def reward_code(settings: Settings) -> dict[str, str]:
    """{function: a digest of its file} of the run's own reward functions."""
    named = [term.function for term in terms_of(settings.rewards).own.values()]
    return {name: code for name in named if (code := serving.code_digest(name))}


def own_rows(
    experiment: Experiment,
    sampled: Episode,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    given: Sequence[str] = (),
) -> OwnRows:
    """Fetches this process's rows and decodes what their attempts say.

    Args:
      sampled: Episode of B rows, `samples` rows for each problem; rows beyond those of `problems`
        are padding and are left out.
      given: texts of first attempts that were not sampled, of the last problems.
    """
    rows, row_N = hosts.own_rows(sampled)
    row_N = row_N[row_N < len(problems) * samples]
    rows = jax.tree.map(lambda x: x[: len(row_N)], rows)  # rows are in order
    own = decoded(experiment, rows, row_N, [problems[row // samples] for row in row_N])
    first_given = len(problems) - len(given)
    for row, text in zip(row_N, own.texts, strict=True):
        if row // samples >= first_given:
            text[0] = given[row // samples - first_given]
    return own


def decoded(
    experiment: Experiment, rows: Episode, row_N: np.ndarray, problems: Sequence[Problem]
) -> OwnRows:
    """Rows that were fetched, with their texts; problems: of each row."""
    return OwnRows(row_N, rows, list(problems), experiment.texts(rows))


@dataclasses.dataclass(frozen=True)
class Grades:
    """The verdicts on this process's rows."""

    reward_NA: np.ndarray  # float32
    solved_NA: np.ndarray  # bool: the attempt counts as right
    reasons: list[list[str]]  # [N][A]
    # With reward functions of the user's own: name -> [N, A], each term; NaN where its call failed.
    of_terms: dict[str, np.ndarray]
    failed: list[str]  # [N] which call failed and how, "" for none


def terms_of(limits: RewardSettings) -> Terms:
    """How attempts are paid, of the settings."""
    named = {
        name: Term(one.function, one.weight, one.batch, one.solves)
        for name, one in limits.functions.items()
    }
    if limits.function:
        named = {"function": Term(limits.function)} | named
    calls = Limits(
        timeout_sec=limits.function_timeout_sec,
        workers=limits.workers,
        retries=limits.retries,
        remember=limits.remember,
        environment=limits.environment,
        memory_gib=limits.function_memory_gib,
    )
    terms = Terms(solved_at=limits.solved_at, failed=limits.failed, limits=calls)
    return dataclasses.replace(terms, of=named) if named else terms


def in_batches(experiment: Experiment) -> bool:
    """Whether a reward function takes all rows of a batch in one call."""
    return any(term.batch for term in terms_of(experiment.settings.rewards).of.values())


def grade(
    experiment: Experiment, own: OwnRows, *, stage: str = "evaluation", step: int = 0
) -> Grades:
    """Grades every attempt. A truncated attempt is not solved and earns what the settings say.

    With selective revision, the answer that is valid after each attempt is graded.
    stage, step: passed to reward functions. Every process must call this, also without rows.
    Raises: InputError on all processes if a function goes wrong on one, or fails for many rows.
    """
    limits = experiment.settings.rewards
    terms = terms_of(limits)
    if not terms.own:
        return _graded(experiment, own, terms, stage, step)
    wrong, grades = "", None
    try:
        grades = _graded(experiment, own, terms, stage, step)
    except InputError as error:
        wrong = str(error)
    reports = hosts.exchange({"wrong": wrong, "failed": grades.failed if grades else []})
    for one in reports:
        if one["wrong"]:
            raise InputError(str(one["wrong"]))
    failed = [why for one in reports for why in one["failed"]]
    counted = Counter(why for why in failed if why)
    if counted.total() > limits.failed_share * len(failed):
        raise InputError(
            f"reward functions failed for {counted.total()} of {len(failed)} rows ({stage}, step "
            f"{step}), which is more than config.rewards.failed_share={limits.failed_share:g}: "
            f"{', '.join(f'{why} {n} times' for why, n in counted.most_common())}. A timeout is a "
            f"call of more than config.rewards.function_timeout_sec={limits.function_timeout_sec:g}"
            "; a crash is a process that ended, perhaps for want of memory "
            f"(config.rewards.function_memory_gib={limits.function_memory_gib}). Run the command "
            "again once the function works; config.rewards.retries asks again."
        )
    assert grades is not None
    return grades


def _graded(experiment: Experiment, own: OwnRows, terms: Terms, stage: str, step: int) -> Grades:
    truncated_NA = np.asarray(own.rows.truncated)
    if not own.problems:  # a process may have no row of a batch
        zero_NA = np.zeros(truncated_NA.shape, np.float32)
        of_terms = dict.fromkeys(terms.of if terms.own else (), zero_NA)
        return Grades(zero_NA, np.zeros_like(truncated_NA), [], of_terms, [])
    if experiment.marks:
        truncated_NA = selective.truncated(own.texts, truncated_NA, experiment.marks)
    texts = _answers(experiment, own)
    limits = experiment.settings.rewards
    attempts = 1 + np.arange(truncated_NA.shape[1])
    tokens_NA = np.sum(np.asarray(own.rows.attempt)[..., None] == attempts, axis=1)
    paid = grader.pay(
        Rows(own.problems, texts, truncated_NA, tokens_NA, stage, step),
        terms,
        deadline_sec=limits.timeout_sec,
        program_sec=limits.program_timeout_sec,
    )
    of_terms = paid.of_terms if terms.own else {}
    grades = Grades(paid.reward_BA, paid.solved_BA, paid.reasons, of_terms, paid.failed)
    return pay_truncated(grades, truncated_NA, limits.truncated)


def lenient(experiment: Experiment, own: OwnRows, solved_NA: np.ndarray) -> np.ndarray:
    """[N, A] bool: solved, or the gold is found in the text, though its form is wrong or it is cut.

    A function of one's own has no lenient form; then it is `solved_NA`.
    """
    limits = experiment.settings.rewards
    if not own.problems or terms_of(limits).own:
        return solved_NA
    texts = _answers(experiment, own)
    return grader.solved_leniently(own.problems, texts, solved_NA, limits.timeout_sec)


def _answers(experiment: Experiment, own: OwnRows) -> list[list[str]]:
    """The texts to grade: with selective revision the answer that is valid after each attempt."""
    if not experiment.marks:
        return own.texts
    return [selective.answers(row, experiment.marks) for row in own.texts]


def pay_truncated(grades: Grades, truncated_NA: np.ndarray, reward: float) -> Grades:
    """A truncated attempt earns `reward`, whatever it says; its reason becomes "truncated".

    The paper does not mention truncation. Reward 0 teaches an attempt to end.
    """
    reasons = [
        ["truncated" if cut else reason for cut, reason in zip(cuts, row, strict=True)]
        for cuts, row in zip(truncated_NA, grades.reasons, strict=True)
    ]
    reward_NA = np.where(truncated_NA, np.float32(reward), grades.reward_NA)
    solved_NA = grades.solved_NA & ~truncated_NA
    return dataclasses.replace(grades, reward_NA=reward_NA, solved_NA=solved_NA, reasons=reasons)


def reason_shares(reasons_BA: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """{"attempt1": {reason: share of the B rows}, …}; an attempt's shares add up to 1.

    The EXPECTED reasons are named even where they are 0. Reasons become names of metrics: other
    characters than letters, digits and ".-" become "_". Rare ones beyond _NAMED count as "other".
    """
    found = {}
    for a, reasons in enumerate(zip(*reasons_BA, strict=True), start=1):
        counts = Counter(re.sub(r"[^\w.-]+", "_", reason)[:40] or "none" for reason in reasons)
        by_count = sorted(counts, key=lambda name: (-counts[name], name))
        named = {*EXPECTED, *by_count[:_NAMED]}
        kept = Counter(dict.fromkeys(EXPECTED, 0))
        for name in by_count:
            kept[name if name in named else "other"] += counts[name]
        found[f"attempt{a}"] = {name: count / len(reasons) for name, count in kept.items()}
    return found


def unlike(own: OwnRows, grades: Grades) -> np.ndarray:
    """[N] float32: whether a row earned otherwise than the first row of the same texts to the same
    problem, 0 or 1; NaN for rows that have no such other, or whose reward function failed."""
    found = np.full(len(own.texts), np.nan, np.float32)
    first: dict[tuple[str, ...], int] = {}
    for n, (problem, texts) in enumerate(zip(own.problems, own.texts, strict=True)):
        if not grades.failed or not grades.failed[n]:
            same = first.setdefault((problem.id, *texts), n)
            if same != n:
                alike = np.array_equal(grades.reward_NA[n], grades.reward_NA[same])
                found[n] = not alike and bool(
                    np.all(own.rows.truncated[n] == own.rows.truncated[same])
                )
    return found


def changed(texts_BA: Sequence[Sequence[str]]) -> np.ndarray:
    """Rows whose second attempt reads differently from the first, [B] bool."""
    return np.array([len(row) > 1 and row[0].strip() != row[1].strip() for row in texts_BA])
