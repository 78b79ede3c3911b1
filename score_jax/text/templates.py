"""Lays out an episode as token ids: prompt, attempt 1, instruction, attempt 2.

A template only ever makes the ids *between* what the policy writes. Turn 2 is attempt 1's sampled
ids followed by `instruction_ids`; nothing is decoded and encoded again, so no token can be lost or
added at a turn's edge (the usual fault of chat templates rendered twice). Drawn for ChatML:

    <|im_start|>user ... <|im_end|> <|im_start|>assistant | 4 2 <|im_end|> | <|im_start|>user ...
    first_turn(problem)                                   | attempt 1      | instruction_ids

Text goes through `Tokenizer.encode`, which cannot make special tokens; those come from `token_id`.
The models' own templates are Jinja programs; they are not run but written out here, and tests hold
them against transformers' rendering. From the shipped one only the default system text is taken.
"""

import dataclasses
import re

from score_jax.problem import InputError
from score_jax.text.tokenizer import Tokenizer

NAMES = ("auto", "plain", "chatml", "llama3", "gemma")
_PLACE = "{problem}"
# Llama 3.1 and later put two dates before the system text. The second is the day of the call if
# the renderer tells it; it stays fixed here, as it does without, so that runs on two days agree.
_LLAMA_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
# The default system text stands in the chat template between these two marks, in one literal.
_DEFAULT_SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^'\"{}]+?)<\|im_end\|>")


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """Everything of an episode that the policy does not write."""

    name: str
    tokenizer: Tokenizer
    prompt_format: str  # what is asked, with "{problem}" where the problem goes
    before: tuple[int, ...]  # ids that begin every row
    lead: str  # text encoded as one with the prompt, e.g. "user\n": its last token may join it
    after: tuple[int, ...]  # ids between the prompt and attempt 1
    strip: bool  # whether blanks around the prompt go, as the model's own template has it
    instruction_ids: list[int]  # between the end token of an attempt and the next attempt
    turn_end_ids: list[int]  # inserted before instruction_ids if the attempt was cut off

    def first_turn(
        self, problem_text: str, prompt_format: str = "", first_attempt: str = ""
    ) -> list[int]:
        """Ids of a row up to where the policy begins to write: attempt 1.

        prompt_format: in place of the template's own, where a problem set has one.
        first_attempt: an attempt that is given; then the policy begins behind the instruction."""
        prompt = (prompt_format or self.prompt_format).replace(_PLACE, problem_text)
        text = self.lead + (prompt.strip() if self.strip else prompt)
        ids = [*self.before, *self.tokenizer.encode(text), *self.after]
        if first_attempt:
            # As if it had been sampled: its tokens, its end, and what follows every attempt.
            written = self.tokenizer.encode(first_attempt, continued=True)
            ids += [*written, self.tokenizer.end_ids[0], *self.instruction_ids]
        return ids


def make(
    name: str, tokenizer: Tokenizer, *, system: str, prompt_format: str, instruction: str
) -> Template:
    """Makes the template of that name for a tokenizer.

    name: one of NAMES; "auto" takes the form that the model's own chat template has, and "plain" if
        the model has none.
    system: system text; empty means what the model's own template does without one (SmolLM2 and
        Qwen2.5 then have a default text, others have none). Not for "plain".
    instruction: what asks for the next attempt, the same after every attempt.
    Raises: InputError for an unknown name, a prompt_format without "{problem}", a system text that
        has no place, or a vocabulary without the special tokens of the form."""
    if prompt_format.count(_PLACE) != 1:
        raise InputError(
            f"The prompt format {prompt_format[:80]!r} has {_PLACE} {prompt_format.count(_PLACE)} "
            f"times; it must have it once, where the problem's text goes. Add {_PLACE}."
        )
    if name == "auto":
        name = _own_form(tokenizer)
    if name not in _FORMS:
        raise InputError(f"There is no template {name!r}. Choose one of {', '.join(NAMES)}.")
    return _FORMS[name](tokenizer, system, prompt_format, instruction)


def _own_form(tokenizer: Tokenizer) -> str:
    for mark, name in (
        ("<|im_start|>", "chatml"),
        ("<|start_header_id|>", "llama3"),
        ("<start_of_turn>", "gemma"),
    ):
        # Base models often have the tokens too, unused; only those tuned to chat ship a template.
        if mark in tokenizer.chat_template and tokenizer.token_id(mark) is not None:
            return name
    return "plain"


def _plain(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    if system:
        raise InputError(
            f"The template 'plain' has no place for the system text {system[:60]!r}. Put it into "
            "the prompt format, or choose one of chatml, llama3, gemma."
        )
    return Template(
        name="plain",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=() if tokenizer.bos_id is None else (tokenizer.bos_id,),
        lead="",
        after=(),
        strip=False,
        instruction_ids=tokenizer.encode(instruction, continued=True),
        turn_end_ids=[tokenizer.end_ids[0]],
    )


def _chatml(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    start, end = (_special(tokenizer, "chatml", text) for text in ("<|im_start|>", "<|im_end|>"))
    system = system or _default_system(tokenizer.chat_template)
    before = [start]
    if system:
        before = [
            start,
            *tokenizer.encode(f"system\n{system}"),
            end,
            *tokenizer.encode("\n"),
            start,
        ]
    to_answer = [end, *tokenizer.encode("\n"), start, *tokenizer.encode("assistant\n")]
    return Template(
        name="chatml",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=tuple(before),
        lead="user\n",
        after=tuple(to_answer),
        strip=False,
        instruction_ids=[
            *tokenizer.encode("\n"),
            start,
            *tokenizer.encode(f"user\n{instruction}"),
            *to_answer,
        ],
        turn_end_ids=[end],
    )


def _llama3(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    begin, header, header_end, end = (
        _special(tokenizer, "llama3", text)
        for text in ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    )

    def role(name: str) -> list[int]:
        return [header, *tokenizer.encode(name), header_end]

    before = [begin]
    dates = _LLAMA_DATES if "Cutting Knowledge Date" in tokenizer.chat_template else ""
    if system or dates:
        before += [*role("system"), *tokenizer.encode(f"\n\n{dates}{system.strip()}"), end]
    to_answer = [end, *role("assistant"), *tokenizer.encode("\n\n")]
    asked = [*role("user"), *tokenizer.encode(f"\n\n{instruction.strip()}")]
    return Template(
        name="llama3",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=(*before, *role("user")),
        lead="\n\n",
        after=tuple(to_answer),
        strip=True,
        instruction_ids=[*asked, *to_answer],
        turn_end_ids=[end],
    )


def _gemma(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    begin, start, end = (
        _special(tokenizer, "gemma", text) for text in ("<bos>", "<start_of_turn>", "<end_of_turn>")
    )
    newline = tokenizer.encode("\n")
    to_answer = [end, *newline, start, *tokenizer.encode("model\n")]
    return Template(
        name="gemma",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=(begin, start),
        # There is no system role: Gemma 3 puts the text before the first question. Gemma 1 and 2
        # refuse one; they are given it in the same way.
        lead="user\n" + (f"{system}\n\n" if system else ""),
        after=tuple(to_answer),
        strip=True,
        instruction_ids=[
            *newline,
            start,
            *tokenizer.encode(f"user\n{instruction.strip()}"),
            *to_answer,
        ],
        turn_end_ids=[end],
    )


_FORMS = {"plain": _plain, "chatml": _chatml, "llama3": _llama3, "gemma": _gemma}


def _special(tokenizer: Tokenizer, name: str, text: str) -> int:
    found = tokenizer.token_id(text)
    if found is None:
        known = ", ".join(list(tokenizer.special)[:8]) or "none"
        raise InputError(
            f"The template {name!r} needs the special token {text}, which this vocabulary lacks "
            f"(it has: {known}). Set the template to 'auto', or to 'plain' for a base model."
        )
    return found


def _default_system(chat_template: str) -> str:
    found = _DEFAULT_SYSTEM.search(chat_template)
    return found[1].replace("\\n", "\n") if found else ""
