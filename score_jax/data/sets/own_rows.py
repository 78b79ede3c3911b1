"""Rows of a user's own data -> Problems, from whatever file: JSON lines, Parquet, the hub, TFDS.

`fields` maps our names to theirs; without an entry, the field has our name:

    problem   the problem's text, or a prompt as messages: [{"role": "user", "content": "…"}, …]
    answer    the right answer, text or a number; of a program its tests (rewards/programs)
    id        one per problem; without it, problems are numbered
    grader    how a problem is graded, such as "program"; without it, "answer"
    solution  a right answer, worked out: what SFT on solutions learns; a program's is run against
              its tests before a run
    others    tags of that name

Names with dots reach into objects and lists: "reward_model.ground_truth", "answers.0". Every other
short text or number of a row is a tag (level, subject, …), and the whole row is `Problem.fields`.

Messages are put to the model as they are, without the run's prompt. They are a user text with or
without a system text before it: with earlier turns of an assistant they are refused.
"""

import decimal
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from score_jax.problem import InputError, Problem
from score_jax.text.prompts import AS_IT_IS

_OWN = ("problem", "answer", "id", "grader", "solution")
TAG_CHARACTERS = 200  # longer texts (solutions) are no tags
# What others call a problem and its answer, the likeliest first.
_ALIASES = {
    "problem": ("question", "prompt", "query", "instruction", "messages", "input", "text"),
    "answer": (
        "final_answer",
        "ground_truth",
        "gold",
        "solution",
        "target",
        "label",
        "expected_answer",
        "output",
        "response",
    ),
}


def problems(
    rows: Iterable[tuple[str, str, Mapping[str, Any]]],
    fields: Mapping[str, str],
    setting: str = "config.problems",
) -> list[Problem]:
    """The problems of (where, id if it has none, row) triples.

    Args:
      where: file and line, for messages.
      setting: the group whose `fields` these are, for messages.
    Raises: InputError naming the row and field that does not fit, or repeats an id.
    """
    found = []
    where_of: dict[str, str] = {}
    for where, identity, row in rows:
        if not isinstance(row, Mapping):
            raise InputError(
                f"{where} is {row!r:.60}, not an object with fields such as 'problem' and 'answer'."
            )
        one = _Row(row, fields, where, setting).problem(identity)
        if one.id in where_of:
            raise InputError(
                f"{where}: id {one.id!r} is already that of {where_of[one.id]}; transcripts and "
                "paired comparisons need one id per problem."
            )
        where_of[one.id] = where
        found.append(one)
    return found


class _Row:
    """One row, with what its messages need."""

    def __init__(self, row: Mapping[str, Any], fields: Mapping[str, str], where: str, setting: str):
        self.row, self.fields, self.where, self.setting = row, fields, where, setting

    def problem(self, identity: str) -> Problem:
        """The problem. identity: its id if the row has none."""
        grader = self._text("grader", "answer")
        asked = self._value("problem")
        messages: tuple[dict[str, str], ...] = ()
        if isinstance(asked, list):
            messages = self._messages(asked)
            asked = messages[-1]["content"]
        elif not isinstance(asked, str):
            self._refuse("problem", f"must be text or a list of messages, got {kind(asked)}")
        answer, solution = self._value("answer"), self._solution(grader)
        if grader == "program" and isinstance(answer, Mapping | list):
            answer = json.dumps({"tests": answer} if isinstance(answer, list) else dict(answer))
        return Problem(
            id=self._text("id", identity),
            prompt=self._checked("problem", asked),
            gold=self._checked("answer", self._plain("answer", answer)),
            grader=grader,
            tags=self._tags(),
            prompt_format=AS_IT_IS if messages else "",
            messages=messages,
            solution=solution,
            reference=solution if grader == "program" else "",
            fields=self.row,
            where=self.where,
        )

    def _value(self, ours: str) -> Any:
        theirs = self.fields.get(ours, ours)
        try:
            return value_at(self.row, theirs)
        except KeyError:
            pass
        names = ", ".join(map(repr, self.row)) or "none"
        if ours in self.fields:
            raise InputError(
                f"{self.where}: there is no field {theirs!r}, which {self.setting}.fields names as "
                f"the {ours}. The fields are {names}."
            )
        raise InputError(
            f"{self.where}: field {ours!r} is missing. The fields are {names}. {self._advice(ours)}"
        )

    def _advice(self, ours: str) -> str:
        """The flag to type, if a field looks like the one that is missing."""
        inner = [
            f"{name}.{key}"
            for name, value in self.row.items()
            if isinstance(value, Mapping)
            for key in value
        ]
        known = _ALIASES.get(ours, ())
        likely = [
            name
            for alias in known
            for name in (*self.row, *inner)
            if name.rpartition(".")[2].lower() == alias
        ]
        if likely:
            return f"If {likely[0]!r} is the {ours}, add {self._naming(ours, likely[0])}"
        return f"If another field is the {ours}, add {self._naming(ours, 'NAME')}"

    def _naming(self, ours: str, theirs: str) -> str:
        """How to say that our field has another name in the rows."""
        if self.setting == "Task":  # from Python
            return f"fields={{{ours!r}: {theirs!r}}}"
        return f"--{self.setting}.fields.{ours}={theirs}"

    def _text(self, ours: str, default: str) -> str:
        """A field that a row need not have; null is as if it was absent."""
        if ours not in self.fields and ours not in self.row:
            return default
        value = self._value(ours)
        return default if value is None else self._plain(ours, value)

    def _solution(self, grader: str) -> str:
        """The text of the solution; a field of that name that is none is another thing."""
        if grader != "program" and "solution" not in self.fields:
            value = self.row.get("solution")
            return self._whole("solution", value) if isinstance(value, str) else ""
        return self._text("solution", "")

    def _plain(self, ours: str, value: Any) -> str:
        text = plain(value)
        if text is None:
            return self._refuse(ours, f"must be text or a number, got {kind(value)}")
        return self._whole(ours, text)

    def _checked(self, ours: str, text: str) -> str:
        if not text.strip():
            self._refuse(ours, "is empty; it must hold text")
        return self._whole(ours, text)

    def _whole(self, ours: str, text: str) -> str:
        check_characters(text, f"{self.where}: field {self.fields.get(ours, ours)!r}")
        return text

    def _refuse(self, ours: str, why: str) -> Any:
        theirs = self.fields.get(ours, ours)
        named = f"{theirs!r} (the {ours})" if theirs != ours else repr(ours)
        raise InputError(
            f"{self.where}: field {named} {why}. Correct the row, or name another field with "
            f"{self._naming(ours, 'NAME')}."
        )

    def _messages(self, messages: list[Any]) -> tuple[dict[str, str], ...]:
        """Messages that are rendered exactly: a user text, with or without a system text."""
        found = []
        for message in messages:
            content = message.get("content") if isinstance(message, Mapping) else None
            if isinstance(content, list) and all(
                isinstance(part, Mapping) and part.get("type") == "text" for part in content
            ):
                content = "".join(str(part.get("text", "")) for part in content)
            if not isinstance(content, str) or not isinstance(message.get("role"), str):
                self._refuse("problem", f"has a message without role and text: {message!r:.80}")
            content = self._whole("problem", str(content))
            found.append({"role": message["role"], "content": content})
        roles = [message["role"] for message in found]
        if roles not in (["user"], ["system", "user"]):
            self._refuse(
                "problem",
                f"has messages of {', '.join(roles) or 'nobody'}. A first turn is a user's "
                "message, or a system's and then a user's; other turns cannot be put to the model "
                "exactly",
            )
        return tuple(found)

    def _tags(self) -> dict[str, str]:
        mapped = {ours: self._value(ours) for ours in self.fields if ours not in _OWN}
        tags = {ours: self._plain(ours, v) for ours, v in mapped.items() if v is not None}
        used = {self.fields.get(ours, ours) for ours in (*_OWN[:-1], *self.fields)}
        for name, value in self.row.items():
            short = isinstance(value, str | int | float) and len(str(value)) <= TAG_CHARACTERS
            if name not in used and short and not isinstance(value, bool):
                tags.setdefault(name, str(value))
        return tags


def plain(value: Any) -> str | None:
    """Text as it is, a number without an exponent: 12.0 is "12", 1e-7 is "0.0000001"; else None."""
    if isinstance(value, str):
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole or (isinstance(value, float | decimal.Decimal) and math.isfinite(value)):
        text = format(decimal.Decimal(str(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return None


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """The field of that name; "a.b.0" is the first of the list b in the object a.

    Raises: KeyError."""
    if name in row:
        return row[name]
    at: Any = row
    for part in name.split("."):
        if isinstance(at, list) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
        elif isinstance(at, Mapping) and part in at:
            at = at[part]
        else:
            raise KeyError(name)
    return at


def check_characters(text: str, what: str) -> None:
    """Raises: InputError for text that no tokenizer takes."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(
            f"{what} holds half of a surrogate pair, which is not a character; tokenizers refuse "
            "it. Write the character itself in UTF-8."
        )


def kind(value: Any) -> str:
    """What a value is, for a message."""
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    return names.get(type(value), f"{value!r}"[:40])
