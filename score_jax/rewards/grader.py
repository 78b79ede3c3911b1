"""Grades all attempts of a batch, each with the grader that its problem names.

A grader takes (text, gold) and returns a Grade. It never raises because of what a model wrote.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from score_jax.problem import Grade, InputError, Problem, nearest
from score_jax.rewards import golds, terms
from score_jax.rewards.answers import voting
from score_jax.rewards.answers.grade import grade_answer, grade_answers
from score_jax.rewards.functions import Rows
from score_jax.rewards.programs import grade as programs
from score_jax.rewards.sandbox import start
from score_jax.rewards.terms import Paid, Term, Terms
from score_jax.rewards.workers.deadlines import DEADLINE_SEC


def first_character(text: str, gold: str) -> Grade:
    """The arithmetic task: the attempt's first character is the answer, one ASCII digit."""
    answer = voting.stated("first_character", text)
    if answer is None:
        return Grade(0.0, "no_answer")
    return Grade(1.0, "equal") if answer == gold else Grade(0.0, "unequal")


GRADERS: dict[str, Callable[[str, str], Grade]] = {
    "answer": grade_answer,
    "first_character": first_character,
    "program": programs.grade_text,
}


def grade(
    problems: Sequence[Problem],
    texts_BA: Sequence[Sequence[str]],
    *,
    deadline_sec: float = DEADLINE_SEC,
    program_sec: float = programs.TIMEOUT_SEC,
    function: str = "",
) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Grades every attempt of every row; equal texts of one problem are graded once.

    problems: one per row (B of them). deadline_sec: wall clock for one hard answer, and for all
    hanging answers of the batch together. program_sec: wall clock for one program with its tests.
    function: "module:function" that grades instead of the problems' own graders; see functions.py.
    Returns: reward_BA float32, solved_BA bool (whether an attempt counts as right), and the
    reasons, B lists of A.
    Raises: as `pay`.
    """
    paid = pay(
        Rows(problems, texts_BA),
        terms_of(function),
        deadline_sec=deadline_sec,
        program_sec=program_sec,
    )
    return paid.reward_BA, paid.solved_BA, paid.reasons


def terms_of(function: str) -> Terms:
    """The terms of a reward that is one function; empty: of the problems' own graders."""
    return Terms({"function": Term(function)}) if function else Terms()


def pay(
    rows: Rows,
    paid: Terms,
    *,
    deadline_sec: float = DEADLINE_SEC,
    program_sec: float = programs.TIMEOUT_SEC,
) -> Paid:
    """Grades every attempt of every row by all terms; see terms.py and, for the limits, `grade`.

    Raises: InputError for an unknown grader, or if a function raises or returns no rewards;
    ValueError for rows of unequal numbers of attempts.
    """
    problems, texts_BA = rows.problems, rows.texts_BA
    attempts = len(texts_BA[0]) if texts_BA else 0
    if len(problems) != len(texts_BA) or any(len(texts) != attempts for texts in texts_BA):
        raise ValueError(
            f"{len(problems)} problems but texts of {[len(texts) for texts in texts_BA]} attempts: "
            "each row needs one problem and equally many attempts."
        )
    return terms.pay(
        paid, rows, lambda: _by_their_graders(problems, texts_BA, deadline_sec, program_sec)
    )


def _by_their_graders(
    problems: Sequence[Problem],
    texts_BA: Sequence[Sequence[str]],
    deadline_sec: float,
    program_sec: float,
) -> list[list[Grade]]:
    questions_BA = [
        [(problem.grader, text, problem.gold) for text in texts]
        for problem, texts in zip(problems, texts_BA, strict=True)
    ]
    questions = dict.fromkeys(itertools.chain(*questions_BA))
    grade_of: dict[tuple[str, str, str], Grade] = {}
    for name in dict.fromkeys(problem.grader for problem in problems):
        mine = [question for question in questions if question[0] == name]
        pairs = [(text, gold) for _, text, gold in mine]
        if name == "answer":
            grades = grade_answers(pairs, deadline_sec)
        elif name == "program":
            grades = programs.grade_texts(pairs, program_sec)
        else:
            grader = find_grader(name)
            grades = [grader(text, gold) for text, gold in pairs]
        grade_of.update(zip(mine, grades, strict=True))
    return [[grade_of[question] for question in row] for row in questions_BA]


def solved_leniently(
    problems: Sequence[Problem],
    texts_BA: Sequence[Sequence[str]],
    solved_BA: np.ndarray,
    deadline_sec: float = DEADLINE_SEC,
) -> np.ndarray:
    """[B, A] bool: solved, or the gold is the answer found anywhere reasonable in the text.

    Separates an answer in the wrong form, or in a truncated text, from an unknown one. Only the
    grader "answer" has a lenient form; with the others it is `solved_BA`. Never for rewards.
    """
    pairs_BA = {
        (b, a): (text, problem.gold)
        for b, (problem, texts) in enumerate(zip(problems, texts_BA, strict=True))
        for a, text in enumerate(texts)
        if problem.grader == "answer" and not solved_BA[b, a]
    }
    found_BA = np.array(solved_BA, bool)
    grades = grade_answers(list(pairs_BA.values()), deadline_sec, lenient=True)
    for place, grade in zip(pairs_BA, grades, strict=True):
        found_BA[place] = grade.solved
    return found_BA


def prepare(
    problems: Sequence[Problem],
    *,
    attempts: int,
    function: str = "",
    paid: Terms | None = None,
    sandbox_kind: str = "auto",
    allow_unsandboxed: bool = False,
    bad_golds: float = golds.SHARE,
    program_sec: float = programs.TIMEOUT_SEC,
    packages: Sequence[str] = (),
) -> str:
    """Checks, before a run, that its problems can be graded; starts what grading needs.

    function, paid: as in `grade` and `pay`; paid comes before function.
    bad_golds: the largest share of right answers that no attempt can match, and of programs that
    do not pass the tests they come with; see golds.py.
    Returns: the kind of sandbox that programs run in, "none" for none; empty if no program is run.
    Raises: InputError for an unknown grader or function, for a gold that cannot be used, and if
    problems need programs to be run and no sandbox works.
    """
    paid = paid or terms_of(function)
    terms.prepare(paid, problems[0], attempts)
    if not paid.needs_builtin():
        return ""
    for name, problem in {one.grader: one for one in reversed(problems)}.items():
        find_grader(name, problem.where)
    golds.check(problems, bad_golds)
    tasks = [problem for problem in problems if problem.grader == "program"]
    start.choose(sandbox_kind, allow_unsandboxed, packages)
    for problem in tasks:
        try:
            programs.read_gold(problem.gold)
        except InputError as error:
            raise InputError(f"problem {problem.id}: {error}") from error
    if not tasks:
        return ""
    golds.check_references(tasks, bad_golds, program_sec)
    return start.shared().kind


def find_grader(name: str, where: str = "") -> Callable[[str, str], Grade]:
    """The grader of that name. Raises: InputError with the nearest valid name.

    where: the first problem that names it, for the message.
    """
    if name in GRADERS:
        return GRADERS[name]
    raise InputError(
        f"{where}{': ' if where else ''}there is no grader {name!r}, so the problems that name it "
        f"cannot be rewarded. {nearest(name, GRADERS)}"
    )
