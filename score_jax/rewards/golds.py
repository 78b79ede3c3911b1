r"""Finds right answers (golds) that no attempt could match, before a run trains on zeros.

A gold is compared with what an attempt states, so it must be an answer alone. Found are golds with
a tag, a box, a #### or a sentence around the answer; whole solutions; those longer than an answer
can be; with braces that do not close; and those that do not grade as equal to themselves. Of
programs, the right ones that a data set comes with are run against its tests.
"""

import re
from collections.abc import Iterator, Sequence

from absl import logging

from score_jax.problem import InputError, Problem
from score_jax.rewards.answers.extract import extract
from score_jax.rewards.answers.grade import MAX_ANSWER_CHARS, grade_answers
from score_jax.rewards.answers.limits import unbalanced
from score_jax.rewards.answers.spelling import normalise
from score_jax.rewards.programs import grade as programs

SHARE = 0.02  # of a file's golds may be bad
_LISTED = 8  # in a message
_FORMS = (r"\boxed{%s}", "Final Answer: The final answer is $%s$. I hope it is correct.")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?(?:answer|think)>|</[A-Za-z]\w*>|<\|\w+\|>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
# Words that make a sentence of a text, outside of commands such as \sin.
_SENTENCE = re.compile(
    r"(?<![\\A-Za-z])(?i:is|are|so|we|thus|hence|therefore|because|since|equals?|gives?|get)"
    r"(?![A-Za-z]).*\d|[a-z]{2}[.!?] +[A-Z]|(?:[A-Za-z]+ ){3,}.*[a-z0-9]\.$"
    r"|^(?i:the )?(?i:final )?(?i:answer|result|solution)\b",
    re.DOTALL,
)


def check(problems: Sequence[Problem], share: float = SHARE) -> None:
    """Refuses problems if more than `share` of a file's golds are bad; warns of fewer.

    Raises: InputError that lists them with place and reason, and says what to do.
    """
    answers = [problem for problem in problems if problem.grader == "answer"]
    reasons = faults([problem.gold for problem in answers])
    found = [
        (p, f"{reason}: {p.gold!r:.80}" if reason else "")
        for p, reason in zip(answers, reasons, strict=True)
    ]
    _refuse(
        found,
        share,
        "right answers are nothing that an attempt's answer could equal, so every attempt at them "
        "earns 0",
        "If they are solutions, --config.problems.solutions=True takes the answer out of each (its "
        "last box, #### or 'the answer is …', or what <answer> tags hold). Else correct them, or "
        "name the field that holds the answer alone with --config.problems.fields.answer=NAME.",
    )


def check_references(
    problems: Sequence[Problem], share: float = SHARE, timeout_sec: float = programs.TIMEOUT_SEC
) -> None:
    """Runs the programs that problems come with against their tests, as `check` does with answers.

    Raises: InputError that lists those that fail.
    """
    given = [problem for problem in problems if problem.reference]
    grades = programs.grade_texts([(p.reference, p.gold) for p in given], timeout_sec)
    found = [(p, "" if one.reward else one.reason) for p, one in zip(given, grades, strict=True)]
    _refuse(
        found,
        share,
        "programs do not pass the tests that they come with, so these tests may be wrong",
        "Correct the tests or the solutions, or leave these problems out.",
    )


def _refuse(found: list[tuple[Problem, str]], share: float, what: str, advice: str) -> None:
    """Raises: InputError if too many problems of a file have a reason; warns of fewer."""
    by_file: dict[str, list[tuple[Problem, str]]] = {}
    for problem, reason in found:
        by_file.setdefault(problem.where.rpartition(",")[0], []).append((problem, reason))
    for file, inside in by_file.items():
        bad = [(problem, reason) for problem, reason in inside if reason]
        if not bad:
            continue
        shown = "; ".join(
            f"{p.where.rpartition(', ')[2]} ({p.id}): {reason}".removeprefix(" ")
            for p, reason in bad[:_LISTED]
        )
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        said = f"{f'{file}: ' if file else ''}{len(bad)} of {len(inside)} {what}: {shown}{more}"
        if len(bad) > share * len(inside):
            raise InputError(
                f"{said}. {advice} config.problems.bad_golds={share:g} is the largest share that a "
                "run accepts."
            )
        logging.warning("%s.", said)


def faults(golds: Sequence[str]) -> list[str]:
    """Why each gold cannot be matched, empty where it can."""
    reason_of = {gold: _form(gold) for gold in golds}
    asked = [gold for gold, reason in reason_of.items() if not reason]
    for form in _FORMS:  # what no form of an answer equals
        grades = grade_answers([(form % gold, gold) for gold in asked])
        asked = [gold for gold, one in zip(asked, grades, strict=True) if not one.reward]
    reason_of |= dict.fromkeys(asked, "it does not even equal itself")
    return [reason_of[gold] for gold in golds]


def taken_out(solution: str) -> str:
    """The answer that a solution states; the solution itself if it states none."""
    tagged = _TAGGED.findall(solution)
    text = tagged[-1].strip() if tagged else solution
    return extract(text) or text


def _form(gold: str) -> str:
    return next(_forms(gold), "")


def _forms(gold: str) -> Iterator[str]:
    if _TAG.search(gold):
        yield "it has a tag in it"
    if _BOX.search(gold):
        yield "it has a box in it"
    if "####" in gold:
        yield "it has a #### in it"
    if len(gold) > MAX_ANSWER_CHARS:
        yield f"it is longer than an answer can be ({MAX_ANSWER_CHARS} characters)"
    if extract(gold) is not None or _SENTENCE.search(gold):
        yield "it is a sentence"
    if unbalanced(normalise(gold)):
        yield "its braces do not close"
