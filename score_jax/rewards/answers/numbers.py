r"""Numbers that are written out, as exact fractions, and the units that may follow them.

`literal` reads integers, decimals, thousands separators, `\frac{a}{b}`, a/b, mixed numbers,
scientific notation, repeating decimals and "3 million". It does no arithmetic: `123 \times 456` and
`2^{10}` are not literals. Digits are ASCII. Input is the output of spelling.normalise.
"""

import re
from fractions import Fraction

_FLAGS = re.ASCII
_PLAIN = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_PLAIN_RE = re.compile(_PLAIN, _FLAGS)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{?(\d+)\}?", _FLAGS)
_FRACTION = re.compile(r"\\frac\{ ?(-?) ?([\d.,]+) ?\}\{ ?(-?) ?([\d.,]+) ?\}", _FLAGS)
_SLASH = re.compile(r"([\d.,]+) ?/ ?(-?) ?([\d.,]+)", _FLAGS)
_MIXED = re.compile(r"(\d+) ?\\frac\{ ?(\d+) ?\}\{ ?(\d+) ?\}|(\d+) (\d+) ?/ ?(\d+)", _FLAGS)
_SCIENTIFIC = re.compile(
    r"([\d.,]+)(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(-?) ?(\d+) ?\}|(-?) ?(\d+))"
    r"|[eE]([+-]?)(\d+))",
    _FLAGS,
)
_POWER_OF_TEN = re.compile(r"10 ?\^ ?(?:\{ ?(-?) ?(\d+) ?\}|(-?)(\d+))", _FLAGS)
_SCALE = re.compile(
    r"([\d.,]+) ?(?:\\text\{)? ?(hundred|thousand|million|billion|trillion) ?\}?", _FLAGS
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
MAX_EXPONENT_DIGITS = 4


def literal(text: str) -> Fraction | None:
    """The number that `text` writes out, or None if it is anything else."""
    text = text.strip()
    sign = 1
    if text[:1] in ("-", "+"):
        sign = -1 if text[0] == "-" else 1
        text = text[1:].lstrip()
    if not text or not (text[0] in "0123456789." or text.startswith(("\\frac", "{"))):
        return None
    if text[0] == "{" and text[-1] == "}" and text.count("{") == 1:
        text = text[1:-1].strip()
    value = _unsigned(text)
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    if _PLAIN_RE.fullmatch(text):
        return _plain(text)
    if match := _FRACTION.fullmatch(text):
        return _ratio(_plain(match[2]), _plain(match[4]), match[1] + match[3])
    if match := _SLASH.fullmatch(text):
        return _ratio(_plain(match[1]), _plain(match[3]), match[2])
    if match := _MIXED.fullmatch(text):
        whole, top, bottom = (int(part) for part in match.groups() if part is not None)
        part = _ratio(Fraction(top), Fraction(bottom), "")
        return None if part is None else whole + part
    if match := _SCIENTIFIC.fullmatch(text):
        exponent = (match[2] or match[4] or match[6] or "") + (match[3] or match[5] or match[7])
        return _shifted(_plain(match[1]), exponent)
    if match := _POWER_OF_TEN.fullmatch(text):
        return _shifted(Fraction(1), (match[1] or match[3] or "") + (match[2] or match[4]))
    if match := _REPEATING.fullmatch(text):
        head, fixed, cycle = match[1] or "0", match[2], match[3]
        nines = (10 ** len(cycle) - 1) * 10 ** len(fixed)
        return Fraction(int(head + fixed + cycle) - int(head + fixed), nines)
    if match := _SCALE.fullmatch(text):
        return _shifted(_plain(match[1]), str(_SCALES[match[2]]))
    return None


def _plain(text: str) -> Fraction | None:
    if not _PLAIN_RE.fullmatch(text):
        return None
    whole, _, decimals = text.replace(",", "").replace(" ", "").partition(".")
    return Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))


def _ratio(top: Fraction | None, bottom: Fraction | None, signs: str) -> Fraction | None:
    if top is None or bottom is None or bottom == 0:
        return None
    return top / bottom * (-1) ** signs.count("-")


def _shifted(value: Fraction | None, exponent: str) -> Fraction | None:
    if value is None or len(exponent.lstrip("+-")) > MAX_EXPONENT_DIGITS:
        return None
    return value * Fraction(10) ** int(exponent)


# Words that make the end of a text a condition, a hedge or arithmetic instead of a unit.
_NOT_UNITS = frozenset(
    """
    or and not but to if is are was be it equals equal approximately approx about around roughly
    maybe perhaps possibly probably either any other another number numbers else something anything
    more less least most than minus plus times over divided by half third quarter negative
    hundred thousand million billion trillion
    sin cos tan cot sec csc log ln exp sqrt mod lim max inf infinity pi i e
    """.split()  # noqa: SIM905
)
_SHORT_UNITS = frozenset(
    """
    mm cm km in ft yd mi kg mg lb lbs oz ml hr hrs min sec ms mph kph am pm sq cu usd deg gm
    """.split()  # noqa: SIM905
)
_ALIASES = {
    "in": "inch", "inche": "inch", "ft": "foot", "feet": "foot", "yd": "yard", "mi": "mile",
    "m": "meter", "metre": "meter", "cm": "centimeter", "centimetre": "centimeter",
    "mm": "millimeter", "km": "kilometer", "kilometre": "kilometer", "g": "gram", "gm": "gram",
    "kg": "kilogram", "lb": "pound", "oz": "ounce", "s": "second", "sec": "second", "h": "hour",
    "hr": "hour", "min": "minute", "usd": "dollar", "buck": "dollar", "deg": "degree",
    "percentage": "%", "percent": "%", "sq": "square", "cu": "cubic", "l": "liter",
    "litre": "liter", "ml": "milliliter", "eur": "euro", "cents": "cent", "penny": "cent",
    "pennie": "cent",
}  # fmt: skip
_MEASURES = frozenset(_ALIASES.values()) | frozenset(
    """
    day week month year square cubic acre gallon quart pint cup ton radian mph kph volt watt
    """.split()  # noqa: SIM905
)
_TEXT_TAIL = re.compile(r"(.*?)\\text ?\{ ?([^{}]*)\}(?: ?\^ ?\{? ?([23]) ?\}?)?", re.DOTALL)
_WORD_TAIL = re.compile(r"(.*?[\d}.])( ?)([A-Za-z][A-Za-z. ]*)(?:\^ ?([23]))?", _FLAGS)
_CURRENCY = re.compile(r"(-?) ?(?:\\\$|\\text\{(euros|pounds sterling|USD|EUR)\})")


def split_unit(text: str) -> tuple[str, str]:
    r"""`5\text{ inches}^2` → ("5", "inch^2"); the unit is "" if there is none.

    Words outside of `\text{}` count only after a literal, so `5xyz` and `5 m` stay products.
    """
    currency = _CURRENCY.match(text)
    if currency:
        body, second = split_unit(currency[1] + text[currency.end() :].strip())
        unit = _unit_name(currency[2] or "dollar", "") or ""
        return (body, unit if second == "" else second) if body else (text, "")
    if text.endswith("\\%"):
        return text[:-2].strip(), "%"
    if text.endswith("}") or text[-1:] in "23":
        tail = _TEXT_TAIL.fullmatch(text)
        if tail and tail[1].strip():
            named = _unit_name(tail[2], tail[3] or "")
            if named is not None:
                return tail[1].strip(), named
    words = _WORD_TAIL.fullmatch(text)
    if words and literal(words[1]) is not None and _plain_words(words[3], bool(words[2])):
        named = _unit_name(words[3], words[4] or "")
        if named is not None:
            return words[1].strip(), named
    return text, ""


def _plain_words(tail: str, apart: bool) -> bool:
    words = tail.replace(".", " ").lower().split()
    return all(word in _SHORT_UNITS or (apart and len(word) >= 3) for word in words)


def _unit_name(written: str, power: str) -> str | None:
    """One name for a unit; None if the words are not a unit."""
    words = re.sub(r"[.\s]+", " ", written.lower()).split()
    if not 1 <= len(words) <= 4 or any(word in _NOT_UNITS for word in words):
        return None
    if not all(re.fullmatch(r"[a-z]+", word) for word in words):
        return None
    stems = []
    for word in words:
        stem = _ALIASES.get(word) or word
        if stem == word and len(word) > 3 and word.endswith("s"):
            stem = _ALIASES.get(word[:-1], word[:-1])
        if stem not in ("per", "of", "the", "a", "an"):
            stems.append(stem)
    for name, exponent in (("square", "2"), ("cubic", "3")):
        if name in stems and len(stems) > 1:
            stems.remove(name)
            power = exponent
    return " ".join(sorted(stems)) + (f"^{power}" if power else "")


def units_agree(gold: str, answer: str) -> bool:
    """Whether two units can mean the same; one of them may be missing."""
    if not gold or not answer or gold == answer:
        return True
    gold_stems, answer_stems = set(gold.split()), set(answer.split())
    # "children tickets" and "tickets" agree; measures must be the same.
    loose = not gold_stems <= _MEASURES or not answer_stems <= _MEASURES
    return loose and "^" not in gold + answer and bool(gold_stems & answer_stems)
