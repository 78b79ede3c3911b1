r"""One spelling for the many ways of writing the same LaTeX: `\dfrac12` → `\frac{1}{2}`.

Only the spelling changes, never the value. Answers are short (grade.py limits them), so many passes
over the string are cheap.
"""

import re

_UNICODE = str.maketrans({
    "−": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "±": r"\pm ", "√": r"\sqrt ",
    "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ", "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "½": r"\frac{1}{2}",
    "°": r"\text{ degrees}", "€": r"\text{euros}", "£": r"\text{pounds sterling}",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2019": "'",
})  # fmt: skip

# Order matters: each line works on the output of the lines above it.
_SPELLING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])", ""),
        # Thousands separators that cannot be anything else: 25,\!000  335{,}670  1\,234
        (r"(?<=[0-9])(?:,\\!|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))", ""),
        (r"\{,\}", ","),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: >]|\\q?quad(?![A-Za-z])|~|\s", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (
            r"\\(?:mbox|hbox|textrm|textbf|textit|textnormal|mathrm|mathbf|mathit|mathsf"
            r"|operatorname|text)(?![A-Za-z])\s*\{",
            r"\\text{",
        ),
        # A roman letter is a letter of the formula, a word is text. A `\text{C}` alone stays.
        (r"(?<![0-9 ])(?<=.)\\text\{([A-Za-z])\}(?=.)", r"\1"),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![A-Za-z])", r"\\text{ degrees}"),
        (r"(?<!\\)%|\\%", r"\\%"),
        (r"(?<!\\)\$", " "),
        (r"\\(le|ge|ne)(?![A-Za-z])", r"\\\1q"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:lvert|rvert)(?![A-Za-z])", "|"),
        (r"\+\s*\\infty", r"\\infty"),
        (r"\*\*", "^"),
        (r" +", " "),
    )
)
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_DIGITS_AFTER_ROOT = re.compile(r"√\s*([0-9]+)")


def normalise(written: str) -> str:
    """The same answer in the spelling that the other files of this folder expect."""
    text = _unwrap(written.strip())
    if "\\" not in text and text.isascii() and not _NEEDS_SPELLING.search(text):
        return text
    text = _DIGITS_AFTER_ROOT.sub(r"\\sqrt{\1}", text).translate(_UNICODE)
    for pattern, replacement in _SPELLING:
        text = pattern.sub(replacement, text)
    return _brace_arguments(text).strip()


_NEEDS_SPELLING = re.compile(r"[\s$%~^_{}*]")


def tight(normalised: str) -> str:
    """The text without spaces, except between two words or numbers; for comparing strings."""
    return re.sub(r" (?![A-Za-z0-9])|(?<![A-Za-z0-9]) ", "", normalised)


def _unwrap(text: str) -> str:
    """The text without delimiters of maths and punctuation around all of it."""
    while True:
        before = text
        text = text.strip().rstrip(".,;").strip()
        for opening, closing in _WRAPPERS:
            inside = text[len(opening) : -len(closing)]
            wrapped = text.startswith(opening) and text.endswith(closing)
            if wrapped and opening not in inside and not inside.endswith("\\"):
                text = inside
        if text == before:
            return text


def _brace_arguments(text: str) -> str:
    r"""`\frac12`, `\frac1{72}`, `\sqrt3`, `x^{2}` → `\frac{1}{2}`, `\frac{1}{72}`, …, `x^2`."""
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
                argument, position = _argument(text, position)
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


def _argument(text: str, position: int) -> tuple[str, int]:
    """The argument that starts at `position`, without its braces, and where it ends."""
    while position < len(text) and text[position] == " ":
        position += 1
    if position >= len(text):
        return "", position
    if text[position] == "{":
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
