"""What each problem is asked in a run of texts of one's own: problems.prompt_text, filled in.

    asked(problems, text, …)            problems whose `asked` is the text with their fields
    of_question(question, settings)     the same for a question that is typed (--mode=try)
    encoded(problem, encode)            ids of a problem's first turn, in any run
    instruction_limit(settings, …)      the most tokens of what comes between two attempts

An instruction_text with fields is filled in too: `Problem.instructions`. Without, it is one for all
problems, and they have none.

A field is looked up in the row of the user's own file (own_rows.py: names that `fields` maps, dots
into objects and lists), then among the problem's tags. Text and numbers can be put in.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence

from score_jax.config.settings import ProblemSettings, Settings
from score_jax.data.sets import arithmetic, own_rows
from score_jax.problem import InputError, Problem
from score_jax.text import prompt_text
from score_jax.text.prompts import AS_IT_IS
from score_jax.text.templates import Template

_SETTING = "config.problems"


def asked(
    problems: Sequence[Problem],
    text: str,
    fields: Mapping[str, str],
    setting: str,
    instructions: Sequence[str] = (),
) -> list[Problem]:
    """The problems with their first turns; prompts that are messages stay as they are.

    Args:
      fields, setting: names of the rows' fields, and the group of settings that says the text.
      instructions: the run's, before each later attempt; a problem gets them if one has a field.
    Raises: InputError naming row and field where a row lacks it, or it is neither text nor number.
    """
    prompt_text.check(text, f"{setting}.prompt_text")
    prompt_text.check_shown(text, instructions, fields)
    return [_filled(one, text, instructions, fields, setting) for one in problems]


def of_question(question: str, settings: ProblemSettings) -> Problem:
    """A question as a problem of the run.

    Where the prompt has other fields too, the question is a JSON object with all of them. An object
    that has an answer too is a row of the user's own file: what it is graded by. The quickstart's
    sums have their answers.
    Raises: InputError for a question that cannot be put into the run's prompt.
    """
    text, fields, instructions = settings.prompt_text, settings.fields, settings.instructions
    whole = arithmetic.of_question(question) if settings.name == arithmetic.NAME else None
    if not (whole or question.strip()):
        raise InputError("the question is empty. Type one, or give --question=TEXT.")
    make = functools.partial(Problem, id="question", gold="", where="the question")
    if whole := whole or _own_row(question, fields):
        return _filled(whole, text, instructions, fields, _SETTING) if text else whole
    if not text:
        return make(prompt=question)
    named = fields.get(prompt_text.PROBLEM, prompt_text.PROBLEM)
    row = {named: question}
    wanted = [name for one in (text, *instructions) for name in prompt_text.fields_of(one)]
    if others := [name for name in dict.fromkeys(wanted) if name != prompt_text.PROBLEM]:
        try:
            row = json.loads(question)
            question = own_rows.value_at(row, named)
        except (ValueError, TypeError, KeyError):
            keys = ", ".join(f'"{name}": …' for name in (named, *others))
            quoted = ", ".join(map(repr, others))
            raise InputError(
                f"the run's prompt and instruction have the fields {quoted} too, so a "
                f"question is a JSON object with all of them: {{{keys}}}."
            ) from None
    return _filled(make(prompt=question, fields=row), text, instructions, fields, _SETTING)


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
    own = {"system": problem.system} if problem.system else {}
    if problem.first_attempt and problem.instructions:
        own["instruction"] = problem.instructions[0]
    if problem.asked:
        return encode(problem.asked, AS_IT_IS, problem.first_attempt, **own)
    return encode(problem.prompt, problem.prompt_format, problem.first_attempt, **own)


def instruction_limit(settings: Settings, template: Template) -> int:
    """The most tokens of an instruction between two attempts, whatever the problem.

    Fields of a row may have config.rollout.max_prompt_tokens in it, as they have in a first turn.
    So it is the same in all modes, and prompts that fit are as a rule no reason not to fit here.
    """
    texts = settings.problems.instructions
    own = max(len(template.turn(prompt_text.stand_in(text))) for text in texts) if texts else 0
    filled = settings.rollout.max_prompt_tokens * any(map(prompt_text.fields_of, texts))
    return max(len(template.instruction_ids), own) + filled


def _filled(
    problem: Problem,
    text: str,
    instructions: Sequence[str],
    fields: Mapping[str, str],
    setting: str,
) -> Problem:
    def fill(text: str, named_in: str) -> str:
        return prompt_text.filled(text, functools.partial(_value, problem, fields, named_in))

    if any(map(prompt_text.fields_of, instructions)):
        # All sets of a run have the run's instruction, so a set's own group does not say it.
        group = _SETTING if setting.startswith(_SETTING) else setting
        own = tuple(fill(one, f"{group}.instruction_text") for one in instructions)
        problem = dataclasses.replace(problem, instructions=own)
    if problem.messages:
        return problem
    return dataclasses.replace(problem, asked=fill(text, f"{setting}.prompt_text"))


def _value(problem: Problem, fields: Mapping[str, str], named_in: str, name: str) -> str:
    if name == prompt_text.PROBLEM:
        return problem.prompt
    where = problem.where or f"problem {problem.id!r}"
    try:
        value = own_rows.value_at(problem.fields, fields.get(name, name))
    except KeyError:
        value = problem.tags.get(name)
        if value is None:
            raise InputError(
                f"{where}: there is no field {name!r}, which {named_in} names. The "
                f"fields are {_names(problem, fields)}. Correct the name, or write {{{{{name}}}}} "
                f"for the text {{{name}}}."
            ) from None
    said = own_rows.plain(value)
    if said is None:
        raise InputError(
            f"{where}: the field {name!r}, which {named_in} names, is "
            f"{own_rows.kind(value)}; text and numbers can be put in. Name a part of it with a "
            f"dot ({{{name}.0}}, {{{name}.NAME}}), or write it as text in the file."
        )
    own_rows.check_characters(said, f"{where}: field {name!r}")
    return said


def _names(problem: Problem, fields: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys((prompt_text.PROBLEM, *fields, *problem.fields, *problem.tags)))
