r"""Numbers that are written out, as exact fractions, and the units that may follow them.

`literal` reads integers, decimals, thousands separators, `\frac{a}{b}`, a/b, mixed numbers,
scientific notation, repeating decimals, and words that change a value: "3 million", "5 dozen", "7
thousandths". `spoken` reads "twenty-one". Neither does arithmetic: `123 \times 456`, `2^{10}` and
"5 factorial" are no literals. Digits are ASCII. Input is the output of spelling.normalise.
"""

import re
from fractions import Fraction

_FLAGS = re.ASCII
# Also 12,34,567, as in India.
_PLAIN = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}"
    r"|[1-9]\d{0,2}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
)
_PLAIN_RE = re.compile(_PLAIN, _FLAGS)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot) ?\{?(\d+)\}?", _FLAGS)
_FRACTION = re.compile(r"\\frac\{ ?(-?) ?([\d.,]+) ?\}\{ ?(-?) ?([\d.,]+) ?\}", _FLAGS)
_SLASH = re.compile(r"\(?([\d.,]+)\)? ?/ ?\(?(-?) ?([\d.,]+)\)?", _FLAGS)
_MIXED = re.compile(r"(\d+) ?\\frac\{ ?(\d+) ?\}\{ ?(\d+) ?\}|(\d+) (\d+) ?/ ?(\d+)", _FLAGS)
_SCIENTIFIC = re.compile(
    r"([\d.,]+)(?: ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?(-?) ?(\d+) ?\}|(-?) ?(\d+))"
    r"|[eE]([+-]?)(\d+))",
    _FLAGS,
)
_POWER_OF_TEN = re.compile(r"10 ?\^ ?(?:\{ ?(-?) ?(\d+) ?\}|(-?)(\d+))", _FLAGS)
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth".split()  # noqa: SIM905
_SCALES = {
    "half": Fraction(1, 2), "halve": Fraction(1, 2), "dozen": Fraction(12),
    "hundred": Fraction(10**2), "thousand": Fraction(10**3), "lakh": Fraction(10**5),
    "million": Fraction(10**6), "crore": Fraction(10**7), "billion": Fraction(10**9),
    "trillion": Fraction(10**12), "twelfth": Fraction(1, 12), "hundredth": Fraction(1, 10**2),
    "thousandth": Fraction(1, 10**3), "millionth": Fraction(1, 10**6),
    "billionth": Fraction(1, 10**9),
    **{ordinal: Fraction(1, 3 + place) for place, ordinal in enumerate(_ORDINALS)},
}  # fmt: skip
_SCALE = re.compile(
    rf"(.*[\d.}}])[ -]?(?:\\text ?\{{)? ?((?:(?:{'|'.join(_SCALES)})s?[ -]?)+)\}}?", _FLAGS
)
_ONES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
    """.split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_SPOKEN = {
    **{word: number for number, word in enumerate(_ONES)},
    **{word: 20 + 10 * place for place, word in enumerate(_TENS)},
}
MAX_EXPONENT_DIGITS = 4


def literal(text: str) -> Fraction | None:
    """The number that `text` writes out, or None if it is anything else."""
    text = text.strip()
    sign = 1
    if text[:1] in ("-", "+"):
        sign = -1 if text[0] == "-" else 1
        text = text[1:].lstrip()
    if not text or not (text[0] in "0123456789.(" or text.startswith(("\\frac", "{"))):
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
    if text[-1] in "}denhfrklst" and (match := _SCALE.fullmatch(text)):
        value = _unsigned(match[1])
        for word in re.split("[ -]+", match[2].strip(" -")):
            value = value and value * (_SCALES.get(word) or _SCALES[word[:-1]])
        return value
    return None


def spoken(words: str) -> int | None:
    """The whole number that is written in words: "two hundred and five"; None for other words."""
    total = group = 0
    said = re.split(r"[ -]+(?:and )?", words.strip().lower())
    if said[0] in ("a", "an"):
        said[0] = "one"
    for place, word in enumerate(said):
        scale = _SCALES.get(word, Fraction(0))
        if word in _SPOKEN:
            # "twenty-one", but not "one twenty" or "two one".
            if group % 100 and not (group % 100 >= 20 and group % 10 == 0 and _SPOKEN[word] < 10):
                return None
            group += _SPOKEN[word]
        elif place == 0 or scale.denominator != 1 or not scale or not group:
            return None
        elif scale <= 100:
            group *= int(scale)
        else:
            total, group = total + group * int(scale), 0
    return total + group


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
    (*_ONES, *_TENS, *_SCALES, *(word + "s" for word in (*_SCALES, *_ONES, *_TENS)))
) | frozenset(
    """
    or and not but to if is are was be it equals equal approximately approx about around roughly
    maybe perhaps possibly probably either any other another number numbers else something anything
    more less least most than minus plus times over divided by negative also so ish unless without
    first previous step wrong incorrect double twice triple thrice fold twofold threefold squared
    cubed root factorial choose power half quarter quarters pair pairs couple couples score gross
    mil mn bn bps basis permille ppm
    sin cos tan cot sec csc log ln exp sqrt mod lim max inf infinity pi i e
    """.split()  # noqa: SIM905
)
_LINKS = ("per", "of", "the", "a", "an")
_SHORT_UNITS = frozenset(
    """
    mm cm km in ft yd mi kg mg lb lbs oz ml hr hrs min sec ms mph kph kmh am pm sq cu
    usd eur gbp inr deg gm
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
    "pennie": "cent", "mph": "mile hour", "kph": "kilometer hour", "kmh": "kilometer hour",
    "kmph": "kilometer hour", "rs": "rupee", "us": "dollar", "inr": "rupee",
    "c": "celsius", "f": "fahrenheit", "gbp": "pound sterling",
}  # fmt: skip
_MEASURES = frozenset(" ".join(_ALIASES.values()).split()) | frozenset(
    """
    day week month year square cubic acre gallon quart pint cup ton radian mph kph volt watt
    """.split()  # noqa: SIM905
)
_KNOWN = _MEASURES | _ALIASES.keys()
_TEXT_TAIL = re.compile(r"(.*?)\\text ?\{ ?([^{}]*)\}(?: ?\^ ?\{? ?([23]) ?\}?)?", re.DOTALL)
_WORD_TAIL = re.compile(
    r"(.*?[\d}.])( ?-?)(?:([A-Za-z][A-Za-z. /]*)|\(([A-Za-z][A-Za-z. /-]*)\))(?:\^ ?([23]))?",
    _FLAGS,
)
_MONEY = r"euros?|pounds sterling|rupees?|yen|won|yuan|USD|EUR|GBP|INR"
_CURRENCY = re.compile(
    rf"(-?) ?(?:(?:US ?)?\\\$|\\text\{{ ?(US\$|Rs\.?|{_MONEY}) ?\}}|(US|Rs\.?|{_MONEY})(?= ?\d))"
)


def split_unit(text: str) -> tuple[str, str]:
    r"""`5\text{ inches}^2` → ("5", "inch^2"); the unit is "" if there is none.

    Words outside of `\text{}` count only after a literal, so `5xyz` and `5 m` stay products. Words
    that change a value stay with it: `5 dozen eggs` → ("5 dozen", "egg"). A number in brackets that
    says the same again is dropped: `12 (twelve)` → ("12", "").
    """
    currency = _CURRENCY.match(text)
    if currency:
        body, second = split_unit(currency[1] + text[currency.end() :].strip())
        unit = _unit_name(currency[2] or currency[3] or "dollar", "") or ""
        return (body, unit if second == "" else second) if body else (text, "")
    if text.endswith("\\%"):
        return text[:-2].strip(), "%"
    if text.endswith("}") or text[-1:] in "23":
        tail = _TEXT_TAIL.fullmatch(text)
        if tail and tail[1].strip():
            split = _split_words(tail[1].strip(), tail[2].strip("( )"), tail[3] or "")
            if split is not None:
                return split
    words = _WORD_TAIL.fullmatch(text)
    if words and literal(words[1]) is not None:
        tail_words = words[3] or words[4]
        if words[4] or _plain_words(tail_words, bool(words[2]), bool(words[5])):
            split = _split_words(words[1], tail_words, words[5] or "")
            if split is not None:
                return split
    return text, ""


def _split_words(body: str, words: str, power: str) -> tuple[str, str] | None:
    """The body with the words that change it, and the unit; None if the words are no unit."""
    said = re.split(r"[ -]+", words.strip())
    changing = 0
    while changing < len(said) and (said[changing] in _SCALES or said[changing][:-1] in _SCALES):
        changing += 1
    if changing:
        body = f"{body} {' '.join(said[:changing])}"
        if literal(body) is None:
            return None
    if changing == len(said):
        return body, ""
    rest = " ".join(said[changing:])
    if not changing and (number := spoken(rest)) is not None:
        return (body, "") if literal(body) == number else None
    unit = _unit_name(rest, power)
    return None if unit is None else (body, unit)


def _plain_words(tail: str, apart: bool, powered: bool) -> bool:
    if "/" in tail:
        parts = [part.strip() for part in tail.replace(".", " ").lower().split("/")]
        return all(_KNOWN & {part, part.removesuffix("s")} for part in parts)
    words = tail.replace(".", " ").lower().split()
    return all(
        word in _SHORT_UNITS
        or (apart and (len(word) >= 3 or (powered and word == "m") or word in _LINKS))
        for word in words
    )


def _unit_name(written: str, power: str) -> str | None:
    """One name for a unit; None if the words are not a unit."""
    words = re.sub(r"[.\s]+", " ", written.lower().replace("/", " per ")).split()
    if not 1 <= len(words) <= 6 or any(word in _NOT_UNITS for word in words):
        return None
    if not all(re.fullmatch(r"[a-z]+", word) for word in words):
        return None
    stems: list[str] = []
    for word in words:
        stem = _ALIASES.get(word) or word
        if stem == word and len(word) > 3 and word.endswith("s"):
            stem = _ALIASES.get(word[:-1], word[:-1])
        if stem not in _LINKS:
            stems.extend(stem.split())
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
