"""Runs the chat template that a model ships: a Jinja program from messages to one text.

The program comes from the internet, so it runs in Jinja's sandbox and sees only text and numbers.
It finds the filters, functions and tags that transformers offers, so it renders the same text. One
thing differs: `strftime_now` gives a fixed date, so that runs on different days agree.

Not handled: limits of time and memory for a template.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from score_jax.problem import InputError

Messages = Sequence[Mapping[str, str]]


class CannotRender(Exception):
    """A template does not take these messages; says why."""


class ChatTemplate:
    """A chat template, ready to run."""

    def __init__(self, text: str):
        """Raises: InputError if the text is not a Jinja program."""
        try:
            self._program = _environment().from_string(text)
            # Names that the program takes from outside, such as "enable_thinking".
            self.variables = jinja2.meta.find_undeclared_variables(_environment().parse(text))
        except jinja2.TemplateError as error:
            raise InputError(
                f"The chat template is not a usable Jinja program: {error}. It begins "
                f"{text[:80]!r}. Mend it (a model's own: download it again), or set "
                "config.model.template to the name of a .jinja file of your own."
            ) from error

    def render(
        self, messages: Messages, today: datetime.datetime, variables: Mapping[str, Any]
    ) -> str:
        """The text of a conversation, up to where the next answer begins.

        Raises: CannotRender if the template refuses the messages or fails on them.
        """
        named = {"strftime_now": today.strftime, "tools": None, "documents": None, **variables}
        try:
            return self._program.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                **named,
            )
        except Exception as error:  # programs may fail in any way
            raise CannotRender(str(error) or type(error).__name__) from error


class _Generation(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} marks what a model writes; rendered as its content."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's way)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)

    made.globals["raise_exception"] = refuse
    made.filters["tojson"] = to_json  # Jinja's own escapes HTML
    return made
