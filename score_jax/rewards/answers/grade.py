r"""Grades stated answers against their golds: 1 for the same value, else 0 with the reason.

In order of cost: find the answer (extract.py), compare spellings (spelling.py), compare exact
numbers and shapes (compare.py), and only then algebra (algebra.py), in a process that is killed at
a deadline. An answer never raises an exception, and costs at most the deadline.

Reasons: equal, unequal, no_answer (none stated), too_long (over 300 characters), refused
(arithmetic left undone, towers of exponents, anything that is not a formula), unparseable, timeout,
crash.
"""

import functools
import itertools
from collections.abc import Sequence

from score_jax.problem import Grade
from score_jax.rewards.answers.compare import Refused, Undecided, same, undecided
from score_jax.rewards.answers.extract import candidates, extract
from score_jax.rewards.answers.limits import too_deep, unbalanced
from score_jax.rewards.answers.parse import read
from score_jax.rewards.answers.spelling import normalise, tight
from score_jax.rewards.remembered import Remembered
from score_jax.rewards.workers import deadlines

MAX_ANSWER_CHARS = 300
_UNDECIDED = "undecided"
_read_gold = functools.lru_cache(maxsize=4_096)(read)
_remembered = Remembered(20_000, ("equal", "unequal", "unparseable", "refused"))  # by algebra


def grade_answer(text: str, gold: str) -> Grade:
    """Whether the final answer that `text` states is `gold`.

    gold: the right answer, or a GSM8K solution that ends in "#### answer".
    Safe from any process and thread. Takes at most deadlines.DEADLINE_SEC; the first call that
    needs algebra takes a few seconds more, to start the processes.
    """
    return grade_answers([(text, gold)])[0]


def grade_leniently(text: str, gold: str) -> Grade:
    """Whether `gold` is anywhere in `text` where an answer may be meant: a metric, never a reward.

    Right if grade_answer says so, or if any of the last boxes, "final answer is …" sentences,
    "answer is …" sentences, labels and `####` lines is right, or else the last number or formula.
    """
    return grade_answers([(text, gold)], lenient=True)[0]


def grade_answers(
    pairs: Sequence[tuple[str, str]],
    deadline_sec: float = deadlines.DEADLINE_SEC,
    *,
    lenient: bool = False,
) -> list[Grade]:
    """Grades (text, gold) pairs together: equal questions once, hard ones in parallel.

    deadline_sec: wall clock for one hard answer, and for all hanging ones of the call together.
    lenient: as grade_leniently; else as grade_answer.
    """
    if lenient:
        return _leniently(pairs, deadline_sec)
    return _decided([(_gold_of(gold), extract(text)) for text, gold in pairs], deadline_sec)


def _leniently(pairs: Sequence[tuple[str, str]], deadline_sec: float) -> list[Grade]:
    """Each pair's first right candidate, else its first one."""
    asked = [[(_gold_of(gold), one) for one in candidates(text)] for text, gold in pairs]
    grades = iter(_decided(list(itertools.chain(*asked)), deadline_sec))
    return [
        max([next(grades) for _ in questions], key=lambda grade: grade.reward)
        for questions in asked
    ]


def _decided(stated: Sequence[tuple[str, str | None]], deadline_sec: float) -> list[Grade]:
    """Grades of (gold, stated answer) pairs."""
    reason_of = {question: _reason(*question) for question in dict.fromkeys(stated)}
    hard = {
        (gold, answer): (normalise(gold), normalise(answer))
        for (gold, answer), reason in reason_of.items()
        if reason == _UNDECIDED and answer is not None
    }
    if hard:
        asked = list(dict.fromkeys(hard.values()))
        decided = dict(zip(asked, deadlines.decide(asked, deadline_sec), strict=True))
        for question, normalised in hard.items():
            reason_of[question] = decided[normalised]
            _remembered.add(question, decided[normalised])
    reasons = [reason_of[question] for question in stated]
    return [Grade(float(reason == "equal"), reason) for reason in reasons]


def forget() -> None:
    """Empties what this process remembers of earlier answers, for measurements."""
    _remembered.clear()
    _quick_reason.cache_clear()
    _read_gold.cache_clear()


def _gold_of(gold: str) -> str:
    return gold.rsplit("####", 1)[1].strip() if "####" in gold else gold


def _reason(gold: str, answer: str | None) -> str:
    """The reason if it is remembered or needs no algebra; else _UNDECIDED."""
    if answer is None:
        return "no_answer"
    if len(answer) > MAX_ANSWER_CHARS:
        return "too_long"
    return _remembered.get((gold, answer)) or _quick_reason(gold, answer)


@functools.lru_cache(maxsize=20_000)
def _quick_reason(gold: str, answer: str) -> str:
    ours, theirs = normalise(gold), normalise(answer)
    if not theirs:
        return "no_answer"
    if ours == theirs or tight(ours) == tight(theirs):
        return "equal"
    if not theirs.isascii() or not theirs.isprintable():
        return "refused"
    if unbalanced(theirs):
        return "unparseable"
    if too_deep(theirs):
        return "refused"
    try:
        return "equal" if same(_read_gold(ours), read(theirs), undecided) else "unequal"
    except Refused:
        return "refused"
    except Undecided:
        return _UNDECIDED
    except RecursionError:
        return "refused"
