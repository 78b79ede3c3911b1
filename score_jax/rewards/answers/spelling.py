r"""One spelling for the many ways of writing the same maths: `\dfrac12`, `½` → `\frac{1}{2}`.

Only the spelling changes, never the value: fonts, colours, spaces, Unicode (by the names and
decompositions of `unicodedata`) and plain text (`sqrt(3)`, `2*pi`, `x >= 2`) become plain LaTeX.
Answers are short (grade.py limits them), so many passes over the string are cheap.
"""

import re
import unicodedata

_SYMBOLS = str.maketrans({
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/",
    "−": "-", "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "≤": r"\leq ",
    "≥": r"\geq ", "⩽": r"\leq ", "⩾": r"\geq ", "≠": r"\neq ", "≈": r"\approx ", "∞": r"\infty ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus ", "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "∠": r"\angle ", "△": r"\triangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "°": r"\text{ degrees}", "º": r"\text{ degrees}",
    "∆": r"\Delta ", "∙": r"\cdot ", "•": r"\cdot ", "′": "'", "\u2018": "'", "\u2019": "'",
    "£": r"\text{pounds sterling}",
})  # fmt: skip
_RUN = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+|[₀₁₂₃₄₅₆₇₈₉]+")

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|csc|log|ln|exp|gcd"
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|sigma|omega|phi|rho|tau|mu|pi"
PLAIN_NUMBER = re.compile(r"-?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?", re.ASCII)
_NEEDS_SPELLING = re.compile(r"[A-Za-z\s$%~^_{}*<>='\\.]")

# Order matters: each line works on the output of the lines above it.
_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:m?left|m?right|middle|[bB]igg?[lrm]?|limits)(?![A-Za-z])\.?", ""),
        # Thousands separators that cannot be anything else: 25,\!000  335{,}670  1\,234  1_000
        (r"(?<=[0-9])(?:,\\!|\{,\}|\\,|\\?_|')(?=[0-9]{3}(?![0-9]))", ""),
        (r"(?<![0-9.,])([1-9][0-9]{0,2})\.([0-9]{3})\.([0-9]{3})(?![0-9.])", r"\1\2\3"),
        (r"\{,\}", ","),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: >]|\\(?:q?quad|enspace|thinspace|hfill|strut)(?![A-Za-z])|~|\s", " "),
        (r"\\[hv]space\*? ?\{[^{}]*\}", " "),
        (r"\\(?:[dtc]|nice|s|x|flat)frac(?![A-Za-z])", r"\\frac"),
        # km/h, in its ways
        (
            r"\\frac ?\{ ?\\text ?\{([^{}]*)\} ?\} ?\{ ?\\text ?\{([^{}]*)\} ?(\^ ?\{?\d\}?)? ?\}",
            r"\\text{\1 per \2}\3",
        ),
        (r"\\text ?\{([^{}]*)\} ?/ ?\\text ?\{([^{}]*)\}", r"\\text{\1 per \2}"),
        # A roman letter is a letter of the formula, a word is text. A `\text{C}` alone stays.
        (r"(?<![0-9 ])(?<=.)\\text\{([A-Za-z])\}(?=.)", r"\1"),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])", r"\\text{ degrees}"),
        (r"(?<=[0-9)])\^(?:o(?![A-Za-z0-9(])|\{ ?o ?\})", r"\\text{ degrees}"),
        (r"\\text\{ degrees\} ?(?:\\text ?\{ ?)?([CF])(?![A-Za-z])\}?", r"\\text{ \1}"),
        (r"(?<!\\)%|\\%", r"\\%"),
        (r"(?<!\\)\$", " "),
        (r"\\(le|ge|ne)(?![A-Za-z])", r"\\\1q"),
        (r"\\(l|g)eqslant(?![A-Za-z])", r"\\\1eq"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:lvert|rvert)(?![A-Za-z])", "|"),
        (r"\\cr(?![A-Za-z])", r"\\\\"),
        (r"\\backslash(?![A-Za-z])|\\smallsetminus(?![A-Za-z])|-(?= ?\\\{)", r"\\setminus"),
        (r"\*\*", "^"),
    )
)
# Plain text for what LaTeX has a command for.
_HAS_PLAIN = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2}|[<>!*/]|E\^|U")
_PLAIN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r">=", r"\\geq "),
        (r"<=", r"\\leq "),
        (r"(?<=[A-Za-z ])!=", r"\\neq "),
        (r"(?<![A-Za-z\\])a(sin|cos|tan)(?=\()", r"\\arc\1"),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])(?= ?[\\^(_A-Za-z0-9])", r"\\\1"),
        (r"(?<![A-Za-z\\])(sec|max|min)(?=\()", r"\\\1"),
        (r"(?<![A-Za-z\\])sqrt ?([0-9]+)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])sqrt(?![A-Za-z])", r"\\sqrt"),
        (r"(?<![A-Za-z\\])cbrt(?![A-Za-z])", r"\\sqrt[3]"),
        (r"(?<![A-Za-z\\])[Aa]bs ?\(([^()]*)\)", r"|\1|"),
        (r"(?<![A-Za-z\\])floor ?\(([^()]*)\)", r"\\lfloor \1\\rfloor "),
        (r"(?<=[)\]}]) ?(?:U|union) ?(?=[(\[{\\])", r"\\cup "),
        (r"(?<=[a-z]) in (?=[(\[])", r"\\in "),
        (r"\+ ?/ ?-", r"\\pm "),
        (r"(?<![A-Za-z\\])E(?=\^)", "e"),
        (r"(?<![A-Za-z\\])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty"),
        (rf"(?<![A-Za-z\\])({_GREEK})(?![A-Za-z])", r"\\\1"),
        (r"(?<=\*)I(?![A-Za-z])|(?<![A-Za-z\\])I(?=\*)", "i"),
    )
)
_LAST = ((re.compile(r"\+\s*\\infty"), r"\\infty"), (re.compile(r" +"), " "))
_TEXT = r"text(?:rm|bf|it|sf|tt|sl|sc|up|md|normal)?|mbox|hbox|emph"
_LETTERS = r"math(?:rm|bf|it|sf|tt|normal)|boldsymbol|operatorname\*?|bm|pmb|bold"
_AROUND = r"(?:textcolor|colorbox) ?\{[^{}]*\}|underline|uline|ensuremath"
_STYLED = re.compile(rf"\\(?:({_TEXT})|({_LETTERS})|(?:{_AROUND}))(?![A-Za-z])\s*(?=\{{)")
_ONE_STYLED = re.compile(rf"\\(?:{_LETTERS}|underline)(?![A-Za-z]) ?(?=[A-Za-z0-9])")
_SWITCH = re.compile(
    r"\\(?:color ?(?:\[\w+\])?\{[^{}]*\}|(?:bf|rm|it|sf|tt|bfseries|itshape|boldmath"
    r"|tiny|small|large|Large|LARGE|huge|Huge|normalsize|(?:display|text|script)style)(?![A-Za-z]))\s*"
)
_GROUP_SWITCH = re.compile(rf"(?<![A-Za-z])\{{\s*{_SWITCH.pattern}")
_ANY_STYLE = re.compile(rf"{_STYLED.pattern}|{_ONE_STYLED.pattern}|{_SWITCH.pattern}")
_WRAPPERS = (
    *(("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("*", "*")),
    *(("`", "`"), ("“", "”"), ("„", "“"), ("«", "»"), ("'", "'"), ("‘", "’")),
    *(("``", "''"), ("__", "__")),
)
_TRAILING = re.compile(
    r"(?:(?<!\\)[.,;\s]|\\[,;:!> ]|\\$|\\q?quad|\\[hv]space\*?\{[^{}]*\}|\\\\|~"
    r"|(?<![A-Za-z}\])])\{\})+$"
)
_LEADING = re.compile(r"(?:\\[,;:!> ]|\\q?quad(?![A-Za-z])|\\[hv]space\*?\{[^{}]*\}|~|\s)+")
_GREEK_NAME = re.compile(
    r"GREEK (?:(SMALL|CAPITAL) LETTER (?:FINAL )?(\w+)|(?:LUNATE )?(\w+) SYMBOL)"
)
_DIGITS_AFTER_ROOT = re.compile(r"√\s*([0-9]+)")


def normalise(written: str) -> str:
    """The same answer in the spelling that the other files of this folder expect."""
    number = written.strip("$ ").rstrip(".")
    if PLAIN_NUMBER.fullmatch(number):
        return number
    text = _unwrap(written.strip())
    if text.isascii() and not _NEEDS_SPELLING.search(text):
        return text
    if not text.isascii():
        text = _ascii(_DIGITS_AFTER_ROOT.sub(r"\\sqrt{\1}", text))
    if "\\" in text and _ANY_STYLE.search(text):
        text = _unstyle(text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    if _HAS_PLAIN.search(text):
        for pattern, replacement in _PLAIN:
            text = pattern.sub(replacement, text)
    for pattern, replacement in _LAST:
        text = pattern.sub(replacement, text)
    return _brace_arguments(text).strip()


def tight(normalised: str) -> str:
    """The text without spaces, except between two words or numbers; for comparing strings."""
    return re.sub(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9]) ", "", normalised)


def _unwrap(text: str) -> str:
    """The text without delimiters of maths, quotes, punctuation and spaces around all of it."""
    while True:
        before = text
        text = _TRAILING.sub("", text[_leading(text) :])
        for opening, closing in _WRAPPERS:
            inside = text[len(opening) : -len(closing)]
            wrapped = text.startswith(opening) and text.endswith(closing)
            if wrapped and inside and opening not in inside and not inside.endswith("\\"):
                text = inside
        if text == before:
            return text


def _leading(text: str) -> int:
    match = _LEADING.match(text)
    return match.end() if match else 0


def _ascii(text: str) -> str:
    """Unicode maths as LaTeX. Other digits than 0 to 9, and unseen characters, stay: refused."""
    text = _RUN.sub(_script, text).translate(_SYMBOLS)
    return "".join(char if char.isascii() else _character(char) for char in text)


def _script(run: re.Match[str]) -> str:
    raised = unicodedata.decomposition(run[0][0]).startswith("<super>")
    plain = unicodedata.normalize("NFKC", run[0]).replace("−", "-")
    return f"{'^' if raised else '_'}{{{plain}}}"


def _character(char: str) -> str:
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    if category == "Zs":
        return " "
    if category == "Pd":
        return "-"
    if category in ("Pi", "Pf"):
        return '"'
    if category == "Sc":
        return rf"\text{{{name.removesuffix(' SIGN').split()[-1].lower()}}}"
    if unicodedata.decomposition(char).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKC", char).partition("⁄")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom else char
    if greek := _GREEK_NAME.fullmatch(name):
        letter = (greek[2] or greek[3]).lower().replace("lamda", "lambda")
        return rf"\{letter.capitalize() if greek[1] == 'CAPITAL' else letter} "
    return char


def _unstyle(text: str) -> str:
    r"""Without fonts and colours: `{\color{red} 5}` → ` 5`, `\textbf{odd}` → `\text{odd}`."""
    for match in reversed(list(_GROUP_SWITCH.finditer(text))):
        end = matching(text, match.start())
        if end is not None:
            inside = text[match.end() : end]
            text = text[: match.start()] + _grouped(text, match.start(), inside) + text[end + 1 :]
    text = _ONE_STYLED.sub("", _SWITCH.sub("", text))
    for match in reversed(list(_STYLED.finditer(text))):
        end = matching(text, match.end())
        if end is None:
            continue
        inside = text[match.end() + 1 : end]
        if re.fullmatch(_FUNCTIONS, inside):
            plain = f"\\{inside} "
        elif match[2] and inside.strip() == "R":
            plain = r"\mathbb{R}"
        elif match[1] or (match[2] and _is_word(inside, roman=match[0].startswith(r"\mathrm"))):
            # Maths inside of text is maths.
            plain = inside if re.search(r"[\\$]", inside) else rf"\text{{{inside}}}"
        else:
            plain = _grouped(text, match.start(), inside)
        text = text[: match.start()] + plain + text[end + 1 :]
    return text


def _is_word(inside: str, *, roman: bool) -> bool:
    r"""Whether letters are a word or a unit, not names of values: `\mathrm{m}` but not `{i}`."""
    if re.fullmatch(r"\s*[A-Za-z]\s*", inside):
        return roman and inside.strip() not in "ied"
    words = r"[A-Za-z().,'/ -]*(?:[A-Za-z]{2}|[a-z]/[a-z])[A-Za-z().,'/ -]*|\([A-Z]\)"
    return bool(re.fullmatch(words, inside))


def _grouped(text: str, start: int, inside: str) -> str:
    """The inside, in braces where an exponent, an index or a fraction needs them."""
    return "{" + inside + "}" if text[:start].rstrip()[-1:] in tuple("^_}]") else inside


def _brace_arguments(text: str) -> str:
    r"""`\frac12`, `\frac1{72}`, `\sqrt3`, `\sqrt(3)`, `x^{2}` → `\frac{1}{2}`, …, `x^2`."""
    out: list[str] = []
    position = 0
    while position < len(text):
        command = re.compile(r"\\(frac|sqrt)(?![A-Za-z])").match(text, position)
        if command:
            out.append(command[0])
            position = command.end()
            if command[1] == "sqrt":
                index = re.compile(r"\s*\[([^\]]*)\]").match(text, position)
                if index:
                    out.append(f"[{index[1].strip()}]")
                    position = index.end()
            for _ in range(2 if command[1] == "frac" else 1):
                argument, position = _argument(text, position, round_too=command[1] == "sqrt")
                out.append("{" + argument + "}")
            continue
        script = re.compile(r"\s*([\^_])\s*\{\s*([A-Za-z0-9])\s*\}").match(text, position)
        if script:
            out.append(script[1] + script[2])
            position = script.end()
            continue
        out.append(text[position])
        position += 1
    return "".join(out)


def _argument(text: str, position: int, *, round_too: bool) -> tuple[str, int]:
    """The argument that starts at `position`, without its braces, and where it ends."""
    while position < len(text) and text[position] == " ":
        position += 1
    if position >= len(text):
        return "", position
    if text[position] == "{" or (round_too and text[position] == "("):
        end = matching(text, position)
        if end is None:
            return text[position + 1 :], len(text)
        return _brace_arguments(text[position + 1 : end]).strip(), end + 1
    command = re.compile(r"\\(?:[A-Za-z]+|.)").match(text, position)
    if command:
        return command[0], command.end()
    return text[position], position + 1


def matching(text: str, start: int) -> int | None:
    """Index of the end of the bracket that closes the one at `start`; None if none does."""
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            # `\{ … \}` are brackets too, and must match.
            depth += (text[position + 1 : position + 2] == "{") - (
                text[position + 1 : position + 2] == "}"
            )
            position += 2
            if depth == 0:
                return position - 1
            continue
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return position
        position += 1
    return None
