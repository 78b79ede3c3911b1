r"""Reads an answer: number, text, list, tuple or interval, union, matrix, relation, expression.

A symbolic library would take different answers for equal: (2, 1) and [2, 1], {1, 2} and (1, 2),
2516_8 and 2516_9, 3:30 and 4:40, "8 = 7" and 7, "tea" and "eat". Reading the kind here keeps them
apart. Input is the output of spelling.normalise.
"""

import dataclasses
import re
from fractions import Fraction

from score_jax.rewards.answers.numbers import literal, split_unit, spoken
from score_jax.rewards.answers.spelling import PLAIN_NUMBER, matching


@dataclasses.dataclass(frozen=True)
class Value:
    """An answer that was read."""

    kind: str  # number, based, text, list, tuple, union, matrix, relation, expression
    source: str  # all of it
    body: str  # without its name and its unit
    exact: Fraction | None = None  # kind number
    # Of kinds list, tuple (intervals too), union, matrix, and the sides of a relation's equations.
    items: tuple["Value", ...] = ()
    form: str = ""  # tuple: its brackets; matrix: "2x3"; based: the base
    name: str = ""  # "x" of "x = 5"
    unit: str = ""


_AND_OR = re.compile(r"\\text ?\{ ?,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])")
_NAME = re.compile(
    r"\\text\{[A-Za-z ]{1,30}\} ?[A-Z]{0,4}"
    r"|\\frac\{[A-Za-z]{1,2}\}\{[A-Za-z]{1,2}\}"
    r"|(?:m ?)?\\angle ?[A-Z]{1,3}|[A-Z]{2,4}|\|[A-Za-z]{1,2}\|"
    r"|\[[A-Z]{3,6}\]"
    r"|\\(?:overline|vec|hat|bar|overrightarrow|overleftrightarrow|widehat) ?\{ ?[A-Za-z]{1,3} ?\}"
    r"|\\(?:triangle|sin|cos|tan) ?(?:[A-Z]{1,3}|[a-z]|\\theta|\\alpha)"
    r"|\((?:[A-Za-z] ?, ?)+[A-Za-z]\)"
    r"|\\?[A-Za-z]+(?:_\{?[A-Za-z0-9]+\}?)?'*(?:\([^()=<>]{1,20}\))?"
    r"|[A-Za-z]{1,2}(?: ?[+-] ?[A-Za-z]{1,2}){1,5}"
)
_OVER = re.compile(r"\\(?:overline|vec|hat|bar|overrightarrow|overleftrightarrow|widehat)|[{} ]")
_VARIABLE = re.compile(
    r"(?:[A-Za-z]|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega))(?:_\w|_\{\w+\})?"
    r"|[A-Za-z] ?\( ?[A-Za-z] ?\)"
)
_MEMBER = re.compile(r"([A-Za-z]) ?\\in(?![A-Za-z]) ?")
_BASED = re.compile(
    r"\(?([0-9A-Za-z]+)\)? ?(?:_ ?\{? ?(?:\\text ?\{)?|(?:\\text ?\{)? ?\(? ?(?:in )?base[ -]) ?"
    r"([0-9]{1,2}|[a-z]+) ?[)}]*",
    re.ASCII,
)
_MATRIX = re.compile(
    r"\\begin ?\{((?:small|psmall|bsmall|[pbB])?matrix|array)\}(.*)\\end ?\{\1\}", re.DOTALL
)
_RELATION = re.compile(r"\\leq|\\geq|\\neq|<|>|=|\\approx|\\equiv|\\sim(?![A-Za-z])")
_SIZE = re.compile(r"\| ?([A-Za-z]) ?\|")
_INEQUALITY = re.compile(r"\\leq|\\geq|\\neq|<|>")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'\-]*")
_CHOICE = re.compile(
    r"(?:option |choice )?(?:\( ?([A-J]) ?\)|([A-J])(?: ?[).:] ?|$))(.*)", re.IGNORECASE
)
_REALS = re.compile(r"\\mathbb ?\{? ?R ?\}?|\\R(?![A-Za-z])|all real(?:s| numbers)")
_IN_REALS = re.compile(r" ?,? ?[A-Za-z] ?\\in ?\\mathbb ?\{? ?R ?\}? ?,? ?")
_BUILDER = re.compile(
    rf"\\\{{ ?({_VARIABLE.pattern})(?: ?\\in ?(?:{_REALS.pattern}))?"
    r" ?(?:\\mid|\\vert|\||:) ?(.*)\\\}"
)
_MIRRORED = {">": "<", r"\geq": r"\leq"}
_OF_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_TURN = re.compile(r"([\d.]+|\\frac\{\d+\}\{\d+\}|(?<![A-Za-z])[a-z]) ?\\text\{ ?degrees?\}")


def read(text: str) -> Value:
    """The value that `text` states; anything unknown is an expression."""
    if PLAIN_NUMBER.fullmatch(text):
        return Value("number", text, text, exact=literal(text))
    text = _peel(text)
    if "degree" in text and _OF_ANGLES.search(text):
        text = _TURN.sub(r"(\\frac{\1\\pi}{180})", text)
    body, unit = split_unit(text) if text else (text, "")
    exact = literal(body)
    if exact is not None:
        return Value("number", text, body, exact=exact, unit=unit)
    only_text = _TEXT.fullmatch(text)
    if only_text:
        words = only_text[1].strip()
        inner = read(words)
        plain = inner.kind in ("number", "list") or _REALS.fullmatch(words)
        return inner if plain else Value("text", text, words)
    builder = _BUILDER.fullmatch(text)
    if builder and _INEQUALITY.search(builder[2]):
        return read(builder[2])
    if ":" in text:
        return Value("text", text, text)
    if " and " in text and (number := spoken(text)) is not None:
        return Value("number", text, str(number), exact=Fraction(number))
    if _INEQUALITY.search(text) and not text.startswith("\\{"):
        text = _IN_REALS.sub("", text)
    parts = _split_list(text)
    if len(parts) > 1:
        values = [read(part) for part in parts]
        bounds = [bool(_INEQUALITY.search(part)) for part in parts]
        if any(bounds) and all(
            value.kind == "tuple" if bound else value.name and _or(text)
            for bound, value in zip(bounds, values, strict=True)
        ):
            return _bounds(text, values)
        return _list(text, values)
    if text.startswith("\\{") and _closes_at_end(text):
        return _list(text, [read(part) for part in _split(text[2:-2], ",;")])
    if _REALS.fullmatch(text):
        return read(r"(-\infty,\infty)")
    member = _MEMBER.match(text)
    if member:
        return read(text[member.end() :])
    if _RELATION.search(text):
        return _relation(text)
    unions = _split(text, "∪") if "\\cup" in text else []
    if len(unions) > 1:
        return Value("union", text, text, items=tuple(read(part) for part in unions))
    if text[:1] in ("(", "[") and _closes_at_end(text):
        inside = text[1:-1].strip()
        if inside.startswith("\\begin") and _MATRIX.fullmatch(inside):
            return read(inside)
        items = tuple(read(part) for part in _split(inside, ",;"))
        if items and {item.form for item in items} == {"[]"} and inside[0] == "[":
            rows = "\\\\".join("&".join(cell.source for cell in item.items) for item in items)
            return _matrix(text, rows)
        return Value("tuple", text, text, items=items, form=text[0] + text[-1])
    if text.startswith("Matrix(") and text.endswith(")"):
        return read(text[len("Matrix(") : -1])
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return _matrix(text, matrix[2])
    based = _BASED.fullmatch(text)
    if based and any(char.isdigit() for char in based[1]):
        base = based[2] if based[2].isdigit() else spoken(based[2])
        if base is not None:
            return Value("based", text, based[1].upper(), form=str(base))
    if _WORDS.fullmatch(text) and re.search(r"[A-Za-z]{3}", text):
        number = spoken(text)
        if number is not None:
            return Value("number", text, str(number), exact=Fraction(number))
        return Value("text", text, text)
    if "\\pm" in body or "\\mp" in body:
        signs = (("+", "-"), ("-", "+"))
        both = [body.replace("\\pm", plus).replace("\\mp", minus) for plus, minus in signs]
        return _list(text, [read(one) for one in both])
    return Value("expression", text, body, unit=unit)


def choice(text: str) -> tuple[str, str] | None:
    r"""The letter of "C", "(C) 12", `\text{(C)} 12`, "C. 12" and what follows it; else None.

    What follows is no choice of a second letter.
    """
    plain = _TEXT.sub(r"\1", text).strip().rstrip(".")
    found = _CHOICE.fullmatch(plain)
    if not found or _AND_OR.search(found[3]) or re.search(r"[A-J] ?\)", found[3]):
        return None
    return (found[1] or found[2]).upper(), found[3].strip()


def text_form(value: Value) -> str:
    """Words for comparison: no case, spaces, full stops, quotes, or brackets around one letter."""
    plain = _TEXT.sub(r"\1", value.source)
    plain = re.sub(r"[\s.'\"`\\]", "", plain).lower()
    return re.sub(r"^\(([a-z])\)$", r"\1", plain)


def _list(text: str, values: list[Value]) -> Value:
    """A flat list; a list of one value is that value."""
    flat: list[Value] = []
    for value in values:
        flat.extend(value.items if value.kind == "list" else (value,))
    return flat[0] if len(flat) == 1 else Value("list", text, text, items=tuple(flat))


def _peel(text: str) -> str:
    """The text without braces and parentheses around one whole value."""
    while True:
        text = text.strip().rstrip(",;").strip()
        inside = text[1:-1]
        around_one = text[:1] == "(" and text[-1:] == ")" and len(_split(inside, ",;")) == 1
        if not ((text[:1] == "{" and text[-1:] == "}") or around_one) or not _closes_at_end(text):
            return text
        text = inside


def _closes_at_end(text: str) -> bool:
    return matching(text, 0) == len(text) - 1


def _split(text: str, separators: str) -> list[str]:
    r"""Parts between separators outside of brackets; the separator `∪` means `\cup`."""
    parts, start, position = [], 0, 0
    while position < len(text):
        char = text[position]
        if char in "([{" or text.startswith("\\{", position):
            # An interval may open with one bracket and close with another; matching() allows it.
            end = matching(text, position)
            position = len(text) if end is None else end + 1
            continue
        width = 1
        if "∪" in separators and text.startswith("\\cup", position):
            char, width = "∪", 4
        elif char == "\\":
            width = 2
        if char in separators:
            parts.append(text[start:position])
            start = position + width
        position += width
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _split_list(text: str) -> list[str]:
    """Parts between commas, semicolons, "and", "or"; commas of thousands are no separators."""
    spoken = _AND_OR.sub(" ; ", text)
    if spoken != text or ", " in text or "=" in text:
        spoken = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", spoken)
    return _split(spoken, ",;")


def _relation(text: str) -> Value:
    sides = [side.strip() for side in _RELATION.split(text)]
    signs = _RELATION.findall(text)
    if set(signs) == {"="} and all(sides):
        if _NAME.fullmatch(sides[0]):
            value = read(text.split("=", 1)[1])
            return dataclasses.replace(value, source=text, name=_OVER.sub("", sides[0]))
        return Value("relation", text, text, items=tuple(read(side) for side in sides))
    interval = _interval(sides, signs)
    return Value("relation", text, text) if interval is None else read(interval)


def _interval(sides: list[str], signs: list[str]) -> str | None:
    """`2 <= x < 5` → `[2,5)`, `x > 3` → `(3,oo)`; None unless it bounds a single letter."""
    if signs == [r"\neq"] and _VARIABLE.fullmatch(sides[0]) and _is_bound(sides[1]):
        return rf"\mathbb{{R}}\setminus\{{{sides[1]}\}}"
    if all(sign in _MIRRORED for sign in signs):
        sides, signs = sides[::-1], [_MIRRORED[sign] for sign in reversed(signs)]
    if not all(sign in ("<", r"\leq") for sign in signs) or not all(sides):
        return None
    if (
        len(sides) == 2
        and (size := _SIZE.fullmatch(sides[0]))
        and re.fullmatch(r"[^+-]+", sides[1])
    ):
        return read(f"-{sides[1]}{signs[0]}{size[1]}{signs[0]}{sides[1]}").source
    opening, closing = "(" if signs[0] == "<" else "[", ")" if signs[-1] == "<" else "]"
    if len(sides) == 3 and _VARIABLE.fullmatch(sides[1]):
        # An infinite bound is never reached.
        opening = "(" if sides[0].endswith("\\infty") else opening
        closing = ")" if sides[2].endswith("\\infty") else closing
        return f"{opening}{sides[0]},{sides[2]}{closing}"
    if len(sides) == 2 and _VARIABLE.fullmatch(sides[0]) and _is_bound(sides[1]):
        return rf"(-\infty,{sides[1]}{closing}"
    if len(sides) == 2 and _VARIABLE.fullmatch(sides[1]) and _is_bound(sides[0]):
        return rf"{opening}{sides[0]},\infty)"
    return None


def _is_bound(side: str) -> bool:
    """Whether a side is a number, so has no letters but e."""
    return not re.search(r"[A-DF-Za-df-z]", re.sub(r"\\(?:[A-Za-z]+)", "", side))


def _bounds(text: str, values: list[Value]) -> Value:
    """Inequalities together: "x < -1 or x > 1" is a union; "x > 1 and x < 5" an interval."""
    if len(values) == 2 and not _or(text):
        rays = {value.items[0].source == r"-\infty": value for value in values}
        if len(rays) < 2:
            return Value("union", text, text, items=tuple(values))
        (low, high), (opening, closing) = (
            (rays[False].items[0], rays[True].items[1]),
            (rays[False].form[0], rays[True].form[1]),
        )
        crossed = low.exact is not None and high.exact is not None and low.exact >= high.exact
        if not crossed:
            return read(f"{opening}{low.source},{high.source}{closing}")
        if _AND.search(text):
            return Value("expression", text, text)
    return Value("union", text, text, items=tuple(values))


def _or(text: str) -> bool:
    return bool(re.search(r"(?<![A-Za-z\\])or(?![A-Za-z])", text))


def _matrix(text: str, inside: str) -> Value:
    inside = re.sub(r"^ ?\{[lcr|]*\}", "", inside)
    rows = [row for row in re.split(r"\\\\(?:\[[0-9.]+[a-z]{2}\])?", inside) if row.strip()]
    cells = [row.split("&") for row in rows]
    if len({len(row) for row in cells}) != 1:
        return Value("expression", text, text)
    form = f"{len(rows)}x{len(cells[0])}"
    items = tuple(read(cell) for row in cells for cell in row)
    return Value("matrix", text, text, items=items, form=form)
