"""The first turn of each problem in a run whose prompt is a text: problems.prompt_text, filled in.

    asked(problems, text, …)            problems whose `asked` is the text with their fields
    of_question(question, settings)     the same for a question that is typed (--mode=try)
    encoded(problem, encode)            ids of a problem's first turn, in any run

A field is looked up in the row of the user's own file (own_rows.py: names that `fields` maps, dots
into objects and lists), then among the problem's tags. Text and numbers can be put in.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence

from score_jax.config.settings import ProblemSettings
from score_jax.data.sets import arithmetic, own_rows
from score_jax.problem import InputError, Problem
from score_jax.text import prompt_text
from score_jax.text.prompts import AS_IT_IS


def asked(
    problems: Sequence[Problem], text: str, fields: Mapping[str, str], setting: str
) -> list[Problem]:
    """The problems with their first turns; prompts that are messages stay as they are.

    Args:
      fields, setting: names of the rows' fields, and the group of settings that says the text.
    Raises: InputError naming row and field where a row lacks it, or it is neither text nor number.
    """
    prompt_text.check(text, f"{setting}.prompt_text")
    return [one if one.messages else _filled(one, text, fields, setting) for one in problems]


def of_question(question: str, settings: ProblemSettings) -> Problem:
    """A question as a problem of the run.

    Where the prompt has other fields too, the question is a JSON object with all of them. An object
    that has an answer too is a row of the user's own file: what it is graded by. The quickstart's
    sums have their answers.
    Raises: InputError for a question that cannot be put into the run's prompt.
    """
    if settings.name == arithmetic.NAME:
        return arithmetic.of_question(question)
    if not question.strip():
        raise InputError("the question is empty. Type one, or give --question=TEXT.")
    make = functools.partial(Problem, id="question", gold="", where="the question")
    text, fields = settings.prompt_text, settings.fields
    if whole := _own_row(question, fields):
        return _filled(whole, text, fields, "config.problems") if text else whole
    if not text:
        return make(prompt=question)
    named = fields.get(prompt_text.PROBLEM, prompt_text.PROBLEM)
    row = {named: question}
    if others := [name for name in prompt_text.fields_of(text) if name != prompt_text.PROBLEM]:
        try:
            row = json.loads(question)
            question = own_rows.value_at(row, named)
        except (ValueError, TypeError, KeyError):
            keys = ", ".join(f'"{name}": …' for name in (named, *others))
            raise InputError(
                f"config.problems.prompt_text has the fields {', '.join(others)} too, so a "
                f"question is a JSON object with all of them: {{{keys}}}."
            ) from None
    return _filled(make(prompt=question, fields=row), text, fields, "config.problems")


def _own_row(question: str, fields: Mapping[str, str]) -> Problem | None:
    """The problem of a row with question and answer; None for another text."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        row = json.loads(question)
        for name in ("problem", "answer"):
            own_rows.value_at(row, fields.get(name, name))
        return own_rows.problems([("the question", "question", row)], fields)[0]
    return None


def encoded(problem: Problem, encode: Callable[..., list[int]]) -> list[int]:
    """Ids of a problem's first turn. encode: a template's first_turn."""
    system = {"system": problem.system} if problem.system else {}
    if problem.asked:
        return encode(problem.asked, AS_IT_IS, problem.first_attempt, **system)
    return encode(problem.prompt, problem.prompt_format, problem.first_attempt, **system)


def _filled(problem: Problem, text: str, fields: Mapping[str, str], setting: str) -> Problem:
    value_of = functools.partial(_value, problem, fields, setting)
    return dataclasses.replace(problem, asked=prompt_text.filled(text, value_of))


def _value(problem: Problem, fields: Mapping[str, str], setting: str, name: str) -> str:
    if name == prompt_text.PROBLEM:
        return problem.prompt
    where = problem.where or f"problem {problem.id!r}"
    try:
        value = own_rows.value_at(problem.fields, fields.get(name, name))
    except KeyError:
        value = problem.tags.get(name)
        if value is None:
            raise InputError(
                f"{where}: there is no field {name!r}, which {setting}.prompt_text names. The "
                f"fields are {_names(problem, fields)}. Correct the name, or write {{{{{name}}}}} "
                f"for the text {{{name}}}."
            ) from None
    said = own_rows.plain(value)
    if said is None:
        raise InputError(
            f"{where}: the field {name!r}, which {setting}.prompt_text names, is "
            f"{own_rows.kind(value)}; text and numbers can be put in. Name a part of it with a "
            f"dot ({{{name}.0}}, {{{name}.NAME}}), or write it as text in the file."
        )
    own_rows.check_characters(said, f"{where}: field {name!r}")
    return said


def _names(problem: Problem, fields: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys((prompt_text.PROBLEM, *fields, *problem.fields, *problem.tags)))
