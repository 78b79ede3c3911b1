"""Whether an answer equals the gold; algebra is left to a function that the caller gives.

Numbers compare exactly. If the gold is an integer, the answer must be a number written out, not
arithmetic left undone. Lists and sets are unordered, tuples ordered; one value too many is wrong.
Brackets, bases and names of letters must agree. A unit, degree or percent sign may be missing on
either side, but not differ. Words compare as words. An equation such as `24/2 = 12` is its right
side if it is true. "(C) 12" is C; "x = 1, y = 2" is (1, 2). All else is decided by `algebra`.
"""

import re
from collections.abc import Callable, Sequence

from score_jax.rewards.answers.limits import refusal
from score_jax.rewards.answers.numbers import units_agree
from score_jax.rewards.answers.parse import Value, choice, text_form
from score_jax.rewards.answers.spelling import tight

Algebra = Callable[[str, str], bool]  # (gold, answer) LaTeX expressions → equal or not


class Undecided(Exception):
    """The comparison needs algebra, so a worker process."""


class Refused(Exception):
    """The answer is of a kind that is never compared."""


def undecided(gold: str, answer: str) -> bool:
    """For a process that does no algebra. Raises: Undecided, or Refused if none may be done."""
    if reason := refusal(answer):
        raise Refused(reason)
    raise Undecided


def same(gold: Value, answer: Value, algebra: Algebra) -> bool:
    """Whether `answer` equals `gold`. Raises: Refused, or what `algebra` raises."""
    if gold.kind == answer.kind == "number" and not (gold.name and answer.name):
        return _same_number(gold, answer)
    if gold.name and answer.name and gold.name != answer.name:
        # "y = x" may be answered "x = y", but "x = 5" not "y = 5".
        both_numbers = gold.kind == "number" or answer.kind == "number"
        return False if both_numbers else algebra(gold.source, answer.source)
    if _same_choice(choice(gold.source), choice(answer.source)):
        return True
    if answer.kind == "relation" and answer.items and gold.kind != "relation" and not gold.name:
        *steps, end = answer.items
        return same(gold, end, algebra) and all(_same_step(end, one, algebra) for one in steps)
    if "text" in (gold.kind, answer.kind):
        return text_form(gold) == text_form(answer)
    if {gold.kind, answer.kind} == {"list", "tuple"}:
        ours, theirs = _by_name(gold), _by_name(answer)
        return (
            bool(ours and theirs) and len(ours) == len(theirs) and _all_same(ours, theirs, algebra)
        )
    if "list" in (gold.kind, answer.kind):
        return gold.kind == answer.kind and _same_unordered(gold.items, answer.items, algebra)
    if gold.kind == answer.kind == "union":
        return _same_unordered(gold.items, answer.items, algebra)
    if gold.kind == answer.kind and gold.kind in ("tuple", "matrix"):
        if gold.form != answer.form or len(gold.items) != len(answer.items):
            return False
        return _all_same(gold.items, answer.items, algebra)
    if gold.kind == answer.kind == "based":
        return (gold.body, gold.form) == (answer.body, answer.form)
    if "relation" in (gold.kind, answer.kind):
        # "y = 2x + 3" is read as a named expression; both must be equations of some kind.
        equations = all(value.kind == "relation" or value.name for value in (gold, answer))
        return equations and algebra(gold.source, answer.source)
    if gold.kind == answer.kind == "number":
        return _same_number(gold, answer)
    scalars = ("number", "expression")
    if gold.kind in scalars and answer.kind in scalars:
        if (
            not _may_need_algebra(gold, answer)
            or not units_agree(gold.unit, answer.unit)
            or not _same_letters(gold.body, answer.body)
        ):
            return False
        if tight(gold.body) == tight(answer.body):
            return True
        letters = _ONE_LETTER.fullmatch(gold.body) and _ONE_LETTER.fullmatch(answer.body)
        return not letters and algebra(gold.body, answer.body)
    sets = ("tuple", "union", "expression")
    if gold.kind in sets and answer.kind in sets:
        written = [value.source for value in (gold, answer) if value.kind == "expression"]
        return any(_SET.search(one) for one in written) and algebra(gold.source, answer.source)
    return False


def _same_choice(gold: tuple[str, str] | None, answer: tuple[str, str] | None) -> bool:
    """Whether both choose one letter, and at least one of them adds nothing to it."""
    if gold is None or answer is None:
        return False
    return gold[0] == answer[0] and not (gold[1] and answer[1])


def _same_step(end: Value, step: Value, algebra: Algebra) -> bool:
    """Whether a side of an equation equals its last side; arithmetic may be left undone here."""
    if step.kind == end.kind == "number":
        return _same_number(end, step)
    scalars = ("number", "expression")
    return {step.kind, end.kind} <= set(scalars) and algebra(end.body, step.body)


def _by_name(value: Value) -> Sequence[Value]:
    """The items of "x = 1, y = 2" in order, as of (1, 2); those of other lists have none."""
    if value.kind == "tuple":
        return value.items if value.form == "()" else ()
    names = [item.name for item in value.items]
    if not all(names) or len(set(names)) < len(names):
        return ()
    if set(names) <= {"x", "y", "z"}:
        return sorted(value.items, key=lambda item: item.name)
    return value.items


_SET = re.compile(r"\\(?:cup|cap|setminus|mathbb|emptyset|begin)(?![A-Za-z])")
_ARITHMETIC = re.compile(r"[+*/]|(?<=[^\s{(])\s*-|\\cdot|\\times|\\div")
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_ONE_LETTER = re.compile(r"[A-Za-z]")
_COMMAND = re.compile(r"\\[A-Za-z]+")


def _same_number(gold: Value, answer: Value) -> bool:
    if gold.exact is None or answer.exact is None or not units_agree(gold.unit, answer.unit):
        return False
    if gold.exact == answer.exact:
        return True
    # 50% equals 50, a missing sign, and 0.5.
    if gold.unit == "%" and answer.unit == "":
        return gold.exact / 100 == answer.exact
    if answer.unit == "%" and gold.unit == "":
        return answer.exact / 100 == gold.exact
    return False


def _may_need_algebra(gold: Value, answer: Value) -> bool:
    """False if the gold is a number and no algebra can turn the answer into it.

    Raises: Refused for arithmetic left undone: the problem copied into the box must not be right.
    """
    if gold.kind != "number" or gold.exact is None:
        return True
    whole = gold.exact.denominator == 1
    if _letters(answer.body):
        return not whole
    if whole or _ARITHMETIC.search(answer.body):
        raise Refused("unevaluated arithmetic")
    return True


def _letters(body: str) -> set[str]:
    return set(_LETTER.findall(_COMMAND.sub(" ", body)))


def _same_letters(gold: str, answer: str) -> bool:
    """False if the letters differ in case only: x is not X."""
    ours, theirs = _letters(gold), _letters(answer)
    return ours == theirs or {c.lower() for c in ours} != {c.lower() for c in theirs}


def _all_same(gold: Sequence[Value], answer: Sequence[Value], algebra: Algebra) -> bool:
    """Compares item by item, first those that need no algebra: most wrong answers differ there."""
    late = []
    for ours, theirs in zip(gold, answer, strict=True):
        try:
            if not same(ours, theirs, undecided):
                return False
        except Undecided:
            late.append((ours, theirs))
    return all(same(ours, theirs, algebra) for ours, theirs in late)


def _same_unordered(gold: Sequence[Value], answer: Sequence[Value], algebra: Algebra) -> bool:
    """Whether the items can be paired so that each pair is equal."""
    if len(gold) != len(answer):
        return False
    refusal: Refused | None = None
    left = list(answer)
    # Numbers first: they match exactly or not at all, and then need no algebra.
    for ours in sorted(gold, key=lambda value: value.kind != "number"):
        for theirs in sorted(left, key=lambda value: value.kind != ours.kind):
            try:
                if same(ours, theirs, algebra):
                    left.remove(theirs)
                    break
            except Refused as error:
                refusal = error
        else:
            if refusal is not None:
                raise refusal
            return False
    return True
