"""Lays out an episode as token ids: prompt, attempt 1, instruction, attempt 2.

A template only makes the ids *between* the attempts of the policy. Turn 2 is the sampled ids of
attempt 1 followed by `instruction_ids`. Nothing is decoded and encoded again, so no token can be
lost or added between turns (the usual error when chat templates are rendered again). For ChatML:

    <|im_start|>user ... <|im_end|> <|im_start|>assistant | 4 2 <|im_end|> | <|im_start|>user ...
    first_turn(problem)                                   | attempt 1      | instruction_ids

The template is the model's own, run once with stand-ins for the texts; frames.py says what is done
where its two turns are not an extension of one. Special tokens come from its own text only: one in
a problem, a system text or an instruction is encoded as ordinary characters.
"""

import contextlib
import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from score_jax.problem import InputError, Problem, nearest
from score_jax.text import forms, frames
from score_jax.text.frames import Frame, Slot
from score_jax.text.jinja import ChatTemplate, Messages
from score_jax.text.tokenizers.base import Tokenizer

_PLACE = "{problem}"
# The date that a template takes as today if no other is set; the default of Llama 3.1's.
TODAY = "2024-07-26"
# What switches thoughts on and off in templates of models that can do both.
_SWITCHES = ("enable_thinking", "thinking")

_PLAIN = Frame(first=(Slot("problem"),), margin="", later=(Slot("instruction"),))


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """All parts of an episode except the attempts."""

    name: str
    tokenizer: Tokenizer
    prompt_format: str  # the question, with "{problem}" for the problem's text
    system: str
    bare: Frame  # without a system text
    framed: Frame | None  # with one; None: the template has no place for it
    later: tuple[frames.Piece, ...]  # what `instruction_ids` were made from
    before: tuple[int, ...]  # ids that begin every row and are not in the frame
    answer_prefix: str  # the fixed beginning of every attempt: given, not sampled
    prefix: str  # that, with the blanks before it
    margin: tuple[str, str]  # what the model writes before and after an attempt
    instruction_ids: list[int]  # between the end token of an attempt and the next attempt
    turn_end_ids: list[int]  # inserted before instruction_ids if the attempt was truncated
    render: Callable[[Messages], str] | None = None  # the chat template itself

    def first_turn(
        self,
        problem_text: str,
        prompt_format: str = "",
        first_attempt: str = "",
        system: str = "",
        instruction: str = "",
    ) -> list[int]:
        """Ids of a row up to the first token that the policy samples.

        prompt_format, system: replace those of the template if they are not empty.
        first_attempt: a given attempt; the policy then samples after the instruction.
        instruction: the text of that; empty: the template's own.
        Raises: InputError for a system text where the template has no place for it, and for texts
            that the chat template does not put into the row unchanged."""
        system = system or self.system
        prompt = (prompt_format or self.prompt_format).replace(_PLACE, problem_text)
        frame = self.framed if system and self.framed else self.bare
        if system and self.name == "plain":
            raise InputError(
                f"The template 'plain' has no place for the system text {system[:60]!r}. Put it "
                f"into the prompt format, or choose one of {', '.join(forms.FORMS)}."
            )
        if frame.later != self.later:
            raise InputError(
                "The chat template writes other texts between two attempts with a system "
                "text than without, and all rows of a run share them. Give every row a system "
                "text, or none."
            )
        if system and not self.framed:
            prompt = f"{system}\n\n{prompt}"
        parts = _parts(frame.first, {"system": system, "problem": prompt})
        if self.render:
            messages = [{"role": "user", "content": prompt}]
            if frame is self.framed:
                messages.insert(0, {"role": "system", "content": system})
            frames.check(self.render, messages, "".join(text for text, _ in parts))
        ids = [*self.before, *self.tokenizer.encode_row([*parts, (self.prefix, False)])]
        if first_attempt:
            turn = self.turn(instruction) if instruction else self.instruction_ids
            ids += [*self.attempt_ids(first_attempt), *turn]
        return ids

    def turn(self, instruction: str) -> list[int]:
        """Ids between the end token of an attempt and the next attempt, which this text asks for.

        Raises: InputError for a text that the chat template does not put into the row unchanged."""
        if not self.render:
            return self.tokenizer.encode(instruction + self.answer_prefix, continued=True)
        self.first_turn(instruction, _PLACE)  # refuses what the template changes
        parts = [*_parts(self.later, {"instruction": instruction}), (self.prefix, False)]
        parts[0] = (parts[0][0].removeprefix(self.margin[1]), True)
        # The end token is encoded with them: some swallow blanks behind them.
        return self.tokenizer.encode_row(parts)[len(self.turn_end_ids) :]

    def attempt_text(self, ids: Sequence[int]) -> str:
        """What an attempt says, its fixed beginning included; ids: without the end token."""
        lead = self.tokenizer.encode(self.answer_prefix) if self.answer_prefix else []
        return self.tokenizer.decode([*lead, *ids])

    def sent(self, problem: Problem, instructions: Sequence[Sequence[int]] = ()) -> dict[str, str]:
        """The texts that the model gets around its attempts, special tokens visible.

        instructions: ids before attempts 2, 3, …; empty: the template's own.
        """
        ids = self.first_turn(
            problem.asked or problem.prompt,
            _PLACE if problem.asked else problem.prompt_format,
            problem.first_attempt,
            problem.system,
            problem.instructions[0] if problem.instructions else "",
        )
        asked = [self.tokenizer.show(ids) for ids in instructions or [self.instruction_ids]]
        names = [f"instruction {n}" for n in range(1, 1 + len(asked))]
        return {
            "prompt": self.tokenizer.show(ids),
            **dict(zip(names if len(asked) > 1 else ["instruction"], asked, strict=True)),
            "after a truncated attempt": self.tokenizer.show(self.turn_end_ids),
        }

    def attempt_ids(self, text: str) -> list[int]:
        """Ids of a given attempt, as if it had been sampled; end token included.

        Raises: InputError if it does not begin as every attempt of this run does."""
        before, after = self.margin
        written = f"{before}{text}{after}"
        if not written.startswith(self.prefix):
            raise InputError(
                f"A given attempt begins {text[:40]!r}, but every attempt of this run begins with "
                f"config.model.answer_prefix={self.answer_prefix!r}. Begin it so, "
                "or leave answer_prefix empty."
            )
        written = written.removeprefix(self.prefix)
        last = self.instruction_ids[-1:]  # what comes before an attempt
        texts = {i: text for text, i in self.tokenizer.special.items()}
        if last and last[0] in texts:
            ids = self.tokenizer.encode_row([(texts[last[0]], True), (written, False)])[1:]
        else:
            ids = self.tokenizer.encode(written, continued=True)
        return [*ids, *self.turn_end_ids]

    @property
    def closes_stopped(self) -> bool:
        """Whether turn_end_ids also follow attempts that a stop sequence ended, as turns need it.

        Under "plain" the instruction then continues the text of the attempt."""
        return self.name != "plain"

    def closing_ids(self, attempt: Sequence[int], truncated: bool) -> list[int]:
        """Ids between a sampled attempt and the instruction: none after its own end token."""
        open_ = truncated
        if self.closes_stopped:
            open_ |= not attempt or attempt[-1] not in self.tokenizer.end_ids
        return self.turn_end_ids if open_ else []


def make(
    name: str,
    tokenizer: Tokenizer,
    *,
    system: str,
    prompt_format: str,
    instruction: str,
    thinking: bool = False,
    arguments: Mapping[str, Any] | None = None,
    date: str = TODAY,
    answer_prefix: str = "",
) -> Template:
    """Makes the template of that name for a tokenizer.

    name: "auto" takes the model's own chat template, or "plain" if it has none; "plain" adds
        nothing to the prompt; one of forms.FORMS; or the name of a .jinja file.
    system: system text; empty does what the model's own template does without one (SmolLM2 and
        Qwen2.5 have a default text, others none). Not for "plain".
    instruction: the request for another attempt, the same after every attempt. `turn` makes the ids
        of others.
    thinking: whether a model that can think does so before it answers.
    arguments: further values that a chat template takes, such as {"date_string": "1 May 2025"}.
    date: what a chat template takes as today.
    answer_prefix: a fixed beginning of every attempt, such as "```python\\n": given, not sampled.
    Raises: InputError for an unknown name, a prompt_format without "{problem}", a system text under
        "plain", a chat template that cannot be continued token by token, a vocabulary without the
        special tokens of the form, thinking=True for a model that cannot think, or thinking=False
        for one that always does."""
    if prompt_format.count(_PLACE) != 1:
        raise InputError(
            f"The prompt format {prompt_format[:80]!r} has {_PLACE} {prompt_format.count(_PLACE)} "
            f"times; it must have it once, in place of the problem's text. Add {_PLACE}."
        )
    with _naming(name):
        program = forms.program(name, tokenizer)
        made = functools.partial(
            Template,
            prompt_format=prompt_format,
            system=system,
            answer_prefix=answer_prefix,
        )
        if not program:
            if arguments:
                raise InputError(
                    f"config.model.template_arguments has {', '.join(arguments)}, but the template "
                    "'plain' takes none. Remove them, or choose another config.model.template."
                )
            template = made(
                name="plain",
                tokenizer=tokenizer,
                bare=_PLAIN,
                framed=None,
                later=_PLAIN.later,
                before=() if tokenizer.bos_id is None else (tokenizer.bos_id,),
                prefix=answer_prefix,
                margin=("", ""),
                instruction_ids=[],
                turn_end_ids=[tokenizer.end_ids[0]],
            )
            if system:
                template.first_turn("")  # refuses it
            return dataclasses.replace(template, instruction_ids=template.turn(instruction))
        render = _rendering(program, tokenizer, thinking, arguments or {}, date)
        bare, framed = frames.both(render)
        _check_thinking(program, bare, thinking)
        frame = framed if system and framed else bare
        after, closed, end = _closing(frame, tokenizer)
        turn_end = tokenizer.encode_row([(closed, True)])
        if end not in tokenizer.end_ids:
            tokenizer = dataclasses.replace(tokenizer, end_ids=(end, *tokenizer.end_ids))
        template = made(
            name=name,
            tokenizer=tokenizer,
            bare=bare,
            framed=framed,
            later=frame.later,
            before=(),
            prefix=frame.margin + answer_prefix if answer_prefix else "",
            margin=(frame.margin, after),
            instruction_ids=[],
            turn_end_ids=turn_end,
            render=render,
        )
        return dataclasses.replace(template, instruction_ids=template.turn(instruction))


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of a .jinja file before the messages of errors that it causes."""
    try:
        yield
    except InputError as error:
        if not name.endswith(".jinja") or name in str(error):
            raise
        raise InputError(f"config.model.template={name}: {error}") from error


def _parts(pieces: tuple[frames.Piece, ...], texts: Mapping[str, str]) -> list[tuple[str, bool]]:
    """(text, whether it is the template's own) of a frame with the texts put in."""
    return [
        (piece, True) if isinstance(piece, str) else (piece.trimmed(texts[piece.name]), False)
        for piece in pieces
    ]


_compiled = functools.lru_cache(maxsize=8)(ChatTemplate)


def _rendering(
    program: str, tokenizer: Tokenizer, thinking: bool, arguments: Mapping[str, Any], date: str
) -> Callable[[Messages], str]:
    """Messages -> text, with all other values that the program takes."""
    chat = _compiled(program)
    for name in arguments:
        if name in _SWITCHES:
            raise InputError(
                f"config.model.template_arguments.{name} is the switch of a thinking model. Set "
                "config.model.thinking instead."
            )
        if name not in chat.variables:
            raise InputError(
                f"The chat template takes no {name!r} (config.model.template_arguments). "
                f"{nearest(name, chat.variables)}"
            )
    try:
        today = datetime.datetime.fromisoformat(date)
    except ValueError:
        raise InputError(
            f"config.model.template_date={date!r} is not a date. Write it as {TODAY}."
        ) from None
    switches = [name for name in _SWITCHES if name in chat.variables]
    variables = {**tokenizer.named, **dict.fromkeys(switches, thinking), **arguments}
    return lambda messages: chat.render(messages, today, variables)


def _check_thinking(program: str, bare: Frame, thinking: bool) -> None:
    switches = any(name in _compiled(program).variables for name in _SWITCHES)
    _, begun, thoughts = bare.opening.rpartition("<think>")
    if begun and "</think>" not in thoughts and not thinking:
        raise InputError(
            "This model always thinks before it answers: its chat template begins every answer "
            "with <think>. Set config.model.thinking to True, or choose another model."
        )
    if thinking and not (begun or switches or "</think>" in program):
        raise InputError(
            "config.model.thinking=True, but this model's chat template has no thinking. Set it to "
            "False."
        )


def _closing(frame: Frame, tokenizer: Tokenizer) -> tuple[str, str, int]:
    """How the template closes an answer: text the model writes last, special tokens, the end token.

    Raises: InputError if it does not close it with a token, so that no attempt would end."""
    pieces = tokenizer.split(str(frame.later[0]))
    end = next((p for p in pieces if isinstance(p, int) and p in tokenizer.end_ids), None)
    if end is None:
        # The file does not list it as an end: it is the first token that does not open a turn.
        opening = tokenizer.split(str(frame.first[0]))
        own = list(pieces)
        while own and opening and own[-1] == opening[-1]:
            own.pop(), opening.pop()
        end = next((p for p in own if isinstance(p, int)), None)
    if end is None:
        known = ", ".join(text for text, i in tokenizer.special.items() if i in tokenizer.end_ids)
        raise InputError(
            "The chat template puts no end token behind an answer: between an answer and "
            f"the next question it writes {frame.later[0]!r}, and the tokens that end an answer "
            f"are {known or 'unnamed'}. Correct eos_token in tokenizer_config.json. "
            f"{frames.WAYS_OUT}"
        )
    texts = {i: text for text, i in tokenizer.special.items()}
    spelled = [p if isinstance(p, str) else texts[p] for p in pieces]
    first = next(i for i, p in enumerate(pieces) if isinstance(p, int))
    last = pieces.index(end)
    return "".join(spelled[:first]), "".join(spelled[first : last + 1]), end
