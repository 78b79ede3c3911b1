r"""Prompts and instructions of one's own: which fields a text asks for, and it with their values.

    fields_of(text)          names in the order of the text, each once
    filled(text, value_of)   the text with value_of(name) in place of each name
    stand_in(text)           the text with a digit for each, where no row is known
    pieces(text)             what it is made of: texts, and names of fields

    {problem}, {context}          a field of the row
    {meta.topic}, {choices.0}     one inside an object or a list
    {{context}}                   the text {context}; {{{context}}} is the value in braces
    \frac{a}{b}, x^{n}, a_{i}     TeX, as it is: also where a field has the name in the braces

Only a plain name in braces is a field: letters, digits, "_" and "-", with dots between the parts,
and a letter or "_" first. All other braces are text ({1, 2}, {"answer": 3}, {n \choose k}), and so
are the groups behind a TeX command, "^" or "_", with all that is inside them. So no prompt can show
a right answer by a \boxed{answer}. A "{" behind a backslash is text too.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from score_jax.problem import InputError

PROBLEM = "problem"  # the problem's own text
_ANSWER = "answer"
_NAME = r"[^\W\d][\w-]*(?:\.[\w-]+)*"
_FIELD = re.compile(rf"\{{\{{(\{{{_NAME}\}})\}}\}}|\{{(\{{{_NAME}\}})\}}|\{{({_NAME})\}}")
_TEX = re.compile(r"\\[A-Za-z]+\*?|\\.|[\^_]", re.DOTALL)
_OPTION = re.compile(r"\[[^\[\]{}]*\](?=\{)")  # \sqrt[3]{x}


class Piece(NamedTuple):
    """A part of a prompt."""

    text: str  # as it is sent, or the name of a field
    is_field: bool = False


def fields_of(text: str) -> list[str]:
    """The fields that a text asks for, in order, each once."""
    return list(dict.fromkeys(piece.text for piece in pieces(text) if piece.is_field))


def filled(text: str, value_of: Callable[[str], str]) -> str:
    """The text with each field's value; values are not looked through for fields again."""
    return "".join(value_of(p.text) if p.is_field else p.text for p in pieces(text))


def check(text: str, setting: str) -> None:
    """Raises: InputError if the text has no place for the problem.

    setting: its name, for the message."""
    if PROBLEM not in fields_of(text):
        found = ", ".join(f"{{{name}}}" for name in fields_of(text)) or "none"
        raise InputError(
            f"{setting}={text[:80]!r} has no {{{PROBLEM}}}, in place of which the problem's text "
            f"is put (its fields: {found}). Add it. Braces behind a TeX command such as \\text, "
            "behind ^ or _, and doubled ones are text; so is \\n on a command line, where a line "
            "break is written $'…\\n…'."
        )


def stand_in(text: str) -> str:
    """The text with a digit, which every tokenizer has, for each field: where no row is known."""
    return filled(text, lambda name: "0")


def check_shown(prompt: str, instructions: Iterable[str], fields: Mapping[str, str]) -> None:
    """Raises: InputError if the prompt, or a text before a later attempt, shows the right answer.

    fields: config.problems.fields, our names -> those of the rows."""
    texts = [("prompt_text", prompt), *(("instruction_text", text) for text in instructions)]
    for setting, text in texts:
        for name in fields_of(text):
            if name in (_ANSWER, fields.get(_ANSWER)):
                raise InputError(
                    f"config.problems.{setting}={text[:80]!r} has {{{name}}}, which is the "
                    "right answer, so the model would copy it and learn nothing. Remove it; "
                    f"the text {{{name}}} itself is written {{{{{name}}}}}."
                )


@functools.lru_cache
def pieces(text: str) -> tuple[Piece, ...]:
    """The parts of a prompt in their order."""
    found: list[Piece] = []
    for piece in _read(text):
        if found and not (piece.is_field or found[-1].is_field):
            piece = Piece(found.pop().text + piece.text)
        found.append(piece)
    return tuple(found)


def _read(text: str) -> Iterator[Piece]:
    at = 0
    while at < len(text):
        if tex := _TEX.match(text, at):
            takes_groups = tex[0] in "^_" or tex[0][1].isalpha()
            end = _behind_groups(text, tex.end()) if takes_groups else tex.end()
            yield Piece(text[at:end])
        elif field := _FIELD.match(text, at):
            braced, doubled, name = field.groups()
            if braced:
                yield from (Piece("{"), Piece(braced[1:-1], True), Piece("}"))
            else:
                yield Piece(doubled) if doubled else Piece(name, True)
            end = field.end()
        else:
            end = at + 1
            yield Piece(text[at])
        at = end


def _behind_groups(text: str, at: int) -> int:
    """Where the groups end that begin at `at`, as {a}{b} or [3]{x}."""
    while True:
        if option := _OPTION.match(text, at):
            at = option.end()
        end = _behind_group(text, at)
        if end == at:
            return at
        at = end


def _behind_group(text: str, at: int) -> int:
    """Where the group ends whose { is at `at`; `at` if there is none, or it is not closed."""
    depth = 0
    for i in range(at, len(text)):
        if text[i] in "{}" and text[i - 1 : i] != "\\":
            depth += 1 if text[i] == "{" else -1
        if depth == 0:
            return i + 1 if i > at else at
    return at
