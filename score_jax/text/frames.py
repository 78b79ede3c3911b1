"""What a chat template puts around the texts of an episode, found by rendering it with stand-ins.

    R1: one question       …user\\n⟨problem⟩<|im_end|>\\n<|im_start|>assistant\\n
    R2: two questions      …user\\n⟨problem⟩<|im_end|>\\n<|im_start|>assistant\\n
                           ⟨attempt⟩<|im_end|>\\n<|im_start|>user\\n⟨instruction⟩<|im_end|>…

Both renderings are cut at the stand-ins. What R2 has behind the attempt is the text between two
attempts. A row goes on from the ids it has, so R2 must begin with R1. Where it does not:

- Thoughts. Templates of thinking models begin an answer with a <think> block, and drop the block
  when they render the answer again (or put an empty one where there was none). In a row the block
  stays as it was sampled.
- The system text. Mistral's templates move it to the last question. In a row it stays before the
  first one, and is not repeated.
- All else is refused, with both renderings.

A template without a place for a system text (it fails or leaves the text out) gets it before the
problem, with an empty line between, as in Gemma 3's template.

Where the template strips the blanks around a text, so does the frame; except that a given attempt
stays as it was written.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from score_jax.problem import InputError
from score_jax.text.jinja import CannotRender, Messages

_NAMES = ("system", "problem", "attempt", "instruction")
_STAND_IN = {name: f"xQ7{name}7Qx" for name in _NAMES}
_CUT = re.compile("xQ7({})7Qx".format("|".join(_NAMES)))
# Blanks beside a stand-in; what is left of them -> what the template strips (None: all blanks). The
# inner ones occur in no template.
_LEFT: dict[str, str | None] = {"\n\x0b": "", "\x0b": "\n", "": None}
_RIGHT: dict[str, str | None] = {"\x0c\n": "", "\x0c": "\n", "": None}
_THOUGHTS = re.compile(r"</?think>|\[/?THINK\]|\s")


WAYS_OUT = (
    "Set config.model.template to the name of a .jinja file that you have mended, to one of the "
    "named forms, or to 'plain', which adds nothing to the prompt."
)


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of a text that is not the template's own, and what is stripped from its ends."""

    name: str
    left: str | None = ""  # characters to strip, as str.lstrip takes them; None: all blanks
    right: str | None = ""

    def trimmed(self, text: str) -> str:
        return text.lstrip(self.left).rstrip(self.right)


Piece = str | Slot  # text of the template, or a place in it


@dataclasses.dataclass(frozen=True)
class Frame:
    """A chat template's own text in an episode."""

    first: tuple[Piece, ...]  # up to where the first answer begins
    margin: str  # blanks between that and the answer
    later: tuple[Piece, ...]  # between two attempts: closes one, asks, and begins the next

    @property
    def opening(self) -> str:
        """The template's text behind the problem; its end begins the answer."""
        return self.first[-1] if isinstance(self.first[-1], str) else ""


def both(render: Callable[[Messages], str]) -> tuple[Frame, Frame | None]:
    """The frame without a system text, and the one with it; None: there is no place for it.

    render: gives the text of messages, ready for the next answer.
    Raises: InputError for a template whose two turns are not an extension of one.
    """
    try:
        bare = _frame(render, system=False, other=None)
    except CannotRender as error:
        raise InputError(
            f"The chat template refuses a conversation of user and assistant: {error}. {WAYS_OUT}"
        ) from error
    try:
        if _STAND_IN["system"] not in render(_conversation(1, system=True)):
            return bare, None
        return bare, _frame(render, system=True, other=bare)
    except CannotRender:
        return bare, None


def check(render: Callable[[Messages], str], messages: Messages, text: str) -> None:
    """Raises: InputError if the template renders the messages otherwise than as `text`.

    Some templates look into the texts, as SmolLM3's for "/no_think" in a system text."""
    try:
        theirs = render(messages)
    except CannotRender as error:
        theirs = f"an error: {error}"
    if theirs != text:
        raise InputError(
            f"The chat template treats the text {messages[-1]['content'][:200]!r}"
            f"{' or its system text' if len(messages) > 1 else ''} in a way of its own, so it is "
            f"not put to the model as it stands. Expected {text[:2000]!r}; the template gives "
            f"{theirs[:2000]!r}. Change the text, or set config.model.template to the name of a "
            ".jinja file that you have mended."
        )


def _conversation(turns: int, *, system: bool, padded: bool = False) -> list[dict[str, str]]:
    said = [("user", "problem"), ("assistant", "attempt"), ("user", "instruction")]
    roles = [("system", "system")] * system + said[: 2 * turns - 1]
    left, right = (next(iter(_LEFT)), next(iter(_RIGHT))) if padded else ("", "")
    return [{"role": role, "content": f"{left}{_STAND_IN[name]}{right}"} for role, name in roles]


def _frame(render: Callable[[Messages], str], *, system: bool, other: Frame | None) -> Frame:
    one, two = (_pieces(render, turns, system=system) for turns in (1, 2))
    names = [piece.name for piece in two if isinstance(piece, Slot)]
    at = names.index("attempt") if "attempt" in names else len(names)
    shown = f"One turn: {_shown(one)!r}. Two turns: {_shown(two)!r}."
    before = two[: 2 * at + 1]
    margin = _margin(one, before)
    # Slots are at odd places, so what is behind the attempt has the instruction at place 1.
    later = two[2 * at + 2 :]
    asked = names[:at].count("problem") == 1 and names[at + 1 :] == ["instruction"]
    if [p.name for p in one if isinstance(p, Slot)].count("problem") != 1:
        asked, other = False, None
    if margin is not None and asked:
        return Frame(one, margin, later)
    if other and one[-1] == other.first[-1]:  # the template moved the system text
        return Frame(one, other.margin, other.later)
    raise InputError(
        "The chat template does not render two turns as an extension of one, so a row "
        f"could not go on from the tokens it has. {shown} {WAYS_OUT}"
    )


def _margin(one: Sequence[Piece], before: Sequence[Piece]) -> str | None:
    """The text between `one`, where an answer begins, and the answer; None: another beginning."""
    if one[:-1] != before[:-1]:
        return None
    first, again = str(one[-1]), str(before[-1])
    if again.startswith(first):
        added = again[len(first) :]
        return added if not added.strip() else (None if _THOUGHTS.sub("", added) else "")
    shared = 0
    while again[shared : shared + 1] == first[shared : shared + 1] != "":
        shared += 1
    return None if _THOUGHTS.sub("", first[shared:] + again[shared:]) else ""


def _pieces(render: Callable[[Messages], str], turns: int, *, system: bool) -> tuple[Piece, ...]:
    """A rendering, cut: text, slot, text, slot, …, text."""
    plain, padded = (
        _CUT.split(render(_conversation(turns, system=system, padded=padded)))
        for padded in (False, True)
    )
    slots = [Slot(name) for name in plain[1::2]]
    for i, (text, around) in enumerate(zip(plain[::2], padded[::2], strict=False)):
        ways = itertools.product(_RIGHT.items(), _LEFT.items())
        found = [
            (r, le)
            for (a, r), (b, le) in ways
            if a * (i > 0) + text + b * (i < len(slots)) == around
        ]
        if not found or plain[1::2] != padded[1::2]:
            raise InputError(
                "The chat template changes the texts of a conversation by more than "
                f"stripping their ends. With and without blanks around them it renders "
                f"{_named(plain)!r} and {_named(padded)!r}. {WAYS_OUT}"
            )
        if i > 0:
            slots[i - 1] = dataclasses.replace(slots[i - 1], right=found[0][0])
        if i < len(slots):
            slots[i] = dataclasses.replace(slots[i], left=found[0][1])
    pieces: list[Piece] = [plain[0]]
    for slot, text in zip(slots, plain[2::2], strict=True):
        pieces += [slot, text]
    return tuple(pieces)


def _shown(pieces: Sequence[Piece]) -> str:
    return _named([p if isinstance(p, str) else p.name for p in pieces])


def _named(pieces: Sequence[str]) -> str:
    return "".join(f"⟨{piece}⟩" if i % 2 else piece for i, piece in enumerate(pieces))
