"""Lays out an episode as token ids: prompt, attempt 1, instruction, attempt 2.

A template only makes the ids *between* the attempts of the policy. Turn 2 is the sampled ids of
attempt 1 followed by `instruction_ids`. Nothing is decoded and encoded again, so no token can be
lost or added between turns (the usual error when chat templates are rendered again). For ChatML:

    <|im_start|>user ... <|im_end|> <|im_start|>assistant | 4 2 <|im_end|> | <|im_start|>user ...
    first_turn(problem)                                   | attempt 1      | instruction_ids

Text goes through `Tokenizer.encode`, which cannot make special tokens; those come from `token_id`.
The models' own templates are Jinja programs. They are not run: this file writes the same forms, and
tests compare them with transformers' rendering. Only two things are read from a model's template:
the default system text, and whether the model thinks.

Thinking: when Qwen3's template renders a conversation again, it drops the <think> block of every
earlier answer. Here a row continues from its ids, so attempt 2 sees attempt 1 as sampled, with its
thoughts (which cost context), or without thinking with the empty block that the template puts
before an answer. Without these blocks the ids are those of the model's own template.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

from score_jax.problem import InputError, nearest
from score_jax.text.tokenizers.base import Tokenizer

_PLACE = "{problem}"
# Llama 3.1 and later put two dates before the system text. The renderer may set the second to the
# current day. Here it is the template's default, so that runs on different days agree.
_LLAMA_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
# The default system text is in the chat template between these two marks, in one literal.
_DEFAULT_SYSTEM = re.compile(
    r"<\|im_start\|>system(?:\\n|\n)((?:(?!\{\{|\{%|['\"]).)+?)<\|im_end\|>", re.DOTALL
)
# The template of a model that can think has this switch. If the model always thinks, its template
# begins every answer with <think>.
_MAY_THINK = "enable_thinking"
_ALWAYS_THINKS = re.compile(r"assistant(?:\\n|\n)<think>(?:\\n|\n)['\"]")
_NO_THOUGHTS, _THINK = "<think>\n\n</think>\n\n", "<think>\n"


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """All parts of an episode except the attempts."""

    name: str
    tokenizer: Tokenizer
    prompt_format: str  # the question, with "{problem}" for the problem's text
    before: tuple[int, ...]  # ids that begin every row
    lead: str  # before the prompt, such as "user\n"; encoded with it: tokens may span both
    after: tuple[int, ...]  # ids between the prompt and attempt 1
    trim: Callable[[str], str]  # removes blanks around the prompt: str.strip, str.rstrip; str: none
    instruction_ids: list[int]  # between the end token of an attempt and the next attempt
    turn_end_ids: list[int]  # inserted before instruction_ids if the attempt was truncated
    trail: str = ""  # after the prompt; encoded with it
    margin: str = ""  # what the model writes before and after an attempt
    with_system: "Callable[[str], Template] | None" = None  # this one with another system text

    def first_turn(
        self, problem_text: str, prompt_format: str = "", first_attempt: str = "", system: str = ""
    ) -> list[int]:
        """Ids of a row up to the first token that the policy samples.

        prompt_format, system: replace those of the template if they are not empty.
        first_attempt: a given attempt; the policy then samples after the instruction."""
        if system and self.with_system:
            return self.with_system(system).first_turn(problem_text, prompt_format, first_attempt)
        prompt = (prompt_format or self.prompt_format).replace(_PLACE, problem_text)
        text = self.lead + self.trim(prompt) + self.trail
        ids = [*self.before, *self.tokenizer.encode(text), *self.after]
        if first_attempt:
            ids += [*self.attempt_ids(first_attempt), *self.instruction_ids]
        return ids

    def attempt_ids(self, text: str) -> list[int]:
        """Ids of a given attempt, as if it had been sampled; end token included."""
        written = f"{self.margin}{text}{self.margin}"
        return [*self.tokenizer.encode(written, continued=True), *self.turn_end_ids]

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
) -> Template:
    """Makes the template of that name for a tokenizer.

    name: one of NAMES; "auto" takes the form of the model's own chat template, or "plain" if the
        model has none.
    system: system text; empty does what the model's own template does without one (SmolLM2 and
        Qwen2.5 have a default text, others none). Not for "plain".
    instruction: the request for another attempt, the same after every attempt.
    thinking: whether a model that can think does so before it answers.
    Raises: InputError for an unknown name, a prompt_format without "{problem}", a system text under
        "plain", a vocabulary without the special tokens of the form, thinking=True for a model that
        cannot think, or thinking=False for one that always does."""
    if prompt_format.count(_PLACE) != 1:
        raise InputError(
            f"The prompt format {prompt_format[:80]!r} has {_PLACE} {prompt_format.count(_PLACE)} "
            f"times; it must have it once, in place of the problem's text. Add {_PLACE}."
        )
    if name == "auto":
        name = _own_form(tokenizer)
    if name not in _FORMS:
        raise InputError(f"There is no template {name!r}. {nearest(name, NAMES)}")
    made = _FORMS[name](tokenizer, system, prompt_format, instruction)
    again = functools.partial(
        make,
        name,
        tokenizer,
        prompt_format=prompt_format,
        instruction=instruction,
        thinking=thinking,
    )
    made = dataclasses.replace(made, with_system=functools.cache(lambda text: again(system=text)))
    if name == "plain":  # ignores the model's own template
        return made
    opening = tokenizer.encode(_opening(tokenizer, thinking))
    return dataclasses.replace(
        made,
        after=(*made.after, *opening),
        instruction_ids=[*made.instruction_ids, *opening],
    )


def _own_form(tokenizer: Tokenizer) -> str:
    # Base models often have the tokens too, but unused; only chat models have a template.
    if not tokenizer.chat_template:
        return "plain"
    for mark, name in (
        ("<|im_start|>", "chatml"),
        ("<|start_header_id|>", "llama3"),
        ("<start_of_turn>", "gemma"),
        ("<<SYS>>", "llama2"),
    ):
        if mark in tokenizer.chat_template:
            return name
    raise InputError(
        "The model's chat template has none of the known forms; it begins "
        f"{tokenizer.chat_template[:80]!r}. Set config.model.template to one of "
        f"{', '.join(_FORMS)}; 'plain' adds nothing to the prompt."
    )


def _opening(tokenizer: Tokenizer, thinking: bool) -> str:
    """The text with which the template begins every answer."""
    if _MAY_THINK in tokenizer.chat_template:
        opening = "" if thinking else _NO_THOUGHTS
    elif _ALWAYS_THINKS.search(tokenizer.chat_template):
        if not thinking:
            raise InputError(
                "This model always thinks before it answers: its chat template begins every answer "
                "with <think>. Set config.model.thinking to True, or choose another model."
            )
        opening = _THINK
    elif thinking:
        raise InputError(
            "config.model.thinking=True, but this model's chat template has no thinking. Set it to "
            "False."
        )
    else:
        return ""
    if len(tokenizer.encode("<think>")) != 1:
        raise InputError(
            "The model's chat template has thoughts between <think> and </think>, but its "
            "vocabulary has no such tokens. Use the tokenizer files that belong to the model."
        )
    return opening


def _plain(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    if system:
        raise InputError(
            f"The template 'plain' has no place for the system text {system[:60]!r}. Put it into "
            "the prompt format, or choose one of chatml, llama2, llama3, gemma."
        )
    return Template(
        name="plain",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=() if tokenizer.bos_id is None else (tokenizer.bos_id,),
        lead="",
        after=(),
        trim=str,
        instruction_ids=tokenizer.encode(instruction, continued=True),
        turn_end_ids=[tokenizer.end_ids[0]],
    )


def _chatml(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    start, end = _special(tokenizer, "chatml", "<|im_start|>", "<|im_end|>")
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
        trim=str,
        instruction_ids=[
            *tokenizer.encode("\n"),
            start,
            *tokenizer.encode(f"user\n{instruction}"),
            *to_answer,
        ],
        turn_end_ids=[end],
    )


def _llama2(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    begin, end = _special(tokenizer, "llama2", "<s>", "</s>")
    # [INST] and other marks are ordinary text, which a problem could hold too; the form has no
    # special tokens for them.
    return Template(
        name="llama2",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=(begin,),
        lead="[INST] " + (f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""),
        after=(),
        trail=" [/INST]",
        # The template strips system text and prompt together.
        trim=str.rstrip if system else str.strip,
        # Every turn begins like a row, so its text has the blank that Llama 2 puts first.
        instruction_ids=[begin, *tokenizer.encode(f"[INST] {instruction.strip()} [/INST]")],
        turn_end_ids=[end],
        margin=" ",
    )


def _llama3(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    marks = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    begin, header, header_end, end = _special(tokenizer, "llama3", *marks)

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
        trim=str.strip,
        instruction_ids=[*asked, *to_answer],
        turn_end_ids=[end],
    )


def _gemma(tokenizer: Tokenizer, system: str, prompt_format: str, instruction: str) -> Template:
    marks = ("<bos>", "<start_of_turn>", "<end_of_turn>")
    begin, start, end = _special(tokenizer, "gemma", *marks)
    newline = tokenizer.encode("\n")
    to_answer = [end, *newline, start, *tokenizer.encode("model\n")]
    return Template(
        name="gemma",
        tokenizer=tokenizer,
        prompt_format=prompt_format,
        before=(begin, start),
        # There is no system role: Gemma 3 puts the text before the first question. Gemma 1 and 2
        # refuse a system text; here they get it in the same way.
        lead="user\n" + (f"{system}\n\n" if system else ""),
        after=tuple(to_answer),
        trim=str.strip,
        instruction_ids=[
            *newline,
            start,
            *tokenizer.encode(f"user\n{instruction.strip()}"),
            *to_answer,
        ],
        turn_end_ids=[end],
    )


_FORMS = {
    "plain": _plain,
    "chatml": _chatml,
    "llama2": _llama2,
    "llama3": _llama3,
    "gemma": _gemma,
}
NAMES = ("auto", *_FORMS)


def _special(tokenizer: Tokenizer, name: str, *texts: str) -> list[int]:
    """The ids of special tokens. Raises: InputError naming those that the vocabulary lacks."""
    missing = [text for text in texts if tokenizer.token_id(text) is None]
    if missing:
        known = ", ".join(list(tokenizer.special)[:8]) or "none"
        raise InputError(
            f"The template {name!r} needs the special tokens {', '.join(missing)}, which this "
            f"vocabulary lacks (it has: {known}). Set config.model.template to 'auto', or to "
            "'plain' for a base model."
        )
    return [tokenizer.special[text] for text in texts]


def _default_system(chat_template: str) -> str:
    found = _DEFAULT_SYSTEM.search(chat_template)
    if not found:
        return ""
    # Escapes of a Jinja literal: \n is a newline, any other character stands for itself.
    return re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], found[1])
