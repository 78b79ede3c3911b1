r"""Finds the final answer that an attempt states; never guesses from the numbers in its prose.

In this order: the last "final answer is …" sentence (the form that the paper's prompt asks for:
`Final Answer: The final answer is $answer$. I hope it is correct.`), the last `\boxed{…}`, the last
`#### …` line (GSM8K), the last "the answer is …" sentence. Two exceptions: a "final answer is" that
continues as prose ("the final answer is in the form a + b …") is ignored if the text has a box, and
any is ignored if a `####` line follows. One that ends in "I hope it is correct" always counts. If
the text has a box command, even one that never closes, the last two forms do not count.

Every scan is linear, and only the last 20,000 characters are read.
"""

import re

WINDOW_CHARS = 20_000
SENTENCE_CHARS = 1_000

_FINAL = re.compile(r"final answer is(?![a-z])", re.IGNORECASE)
_ANSWER = re.compile(r"answer is(?![a-z])", re.IGNORECASE)
_HOPE = re.compile(r"I hope it is correct", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]", "\\begin": "\\end"}
_OPENING = re.compile(r"\\begin|\\[(\[]|\$\$|\$")
_PROSE = re.compile(r"[A-Za-z]{2}|[Aa] [a-z]{2}")
_MORE = re.compile(r"[0-9]|(?<![A-Za-z])(?:or|and|not)(?![A-Za-z])", re.IGNORECASE)
_EXPLANATION = re.compile(r"(?<![A-Za-z])(?:where|because|since)(?![A-Za-z])")


def extract(text: str) -> str | None:
    """The answer that `text` states, as written; None if it states none."""
    tail = text[-WINDOW_CHARS:]
    boxes = _boxes(tail) if "box" in tail else []
    final = _last_sentence(_FINAL, tail)
    if final is not None:
        sentence, closed, position = final
        named_later = (boxes and _PROSE.match(sentence)) or "####" in tail[position:]
        if closed or not named_later:
            return sentence
    if boxes:
        return boxes[-1].strip() or None
    if _BOX.search(tail):
        return None
    if "####" in tail:
        line = tail.rsplit("####", 1)[1].lstrip().split("\n", 1)[0].strip()
        return line or None
    plain = _last_sentence(_ANSWER, tail)
    return None if plain is None else plain[0]


def _boxes(text: str) -> list[str]:
    r"""Contents of all `\boxed{…}` with balanced braces, or of one bare token as in `\boxed 2`.

    A box inside of a box is part of the outer one's content: `\boxed{6\boxed{5}}` gives 6{5}.
    """
    close_of: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACES.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            close_of[opened.pop()] = match.start()
    found = []
    end = 0
    for match in _BOX.finditer(text):
        start = match.end()
        if start <= end:
            continue
        while start < len(text) and text[start].isspace():
            start += 1
        if start < len(text) and text[start] == "{":
            if start in close_of:
                end = close_of[start]
                found.append(_BOX.sub("", text[start + 1 : end]))
        else:
            token = re.match(r"[^\s${}\\]{1,64}", text[start : start + 64])
            if token:
                found.append(token[0].rstrip(".,;:"))
    return found


def _last_sentence(marker: re.Pattern[str], text: str) -> tuple[str, bool, int] | None:
    """The rest of the sentence after the last marker that is followed by text.

    Returns: this text, whether "I hope it is correct" ends it, and the position after the marker.
    """
    for match in reversed(list(marker.finditer(text))):
        rest = text[match.end() : match.end() + SENTENCE_CHARS].lstrip(" \t\r\n:*")
        hope = _HOPE.search(rest)
        if hope and "\n\n" in rest[: hope.start()].rstrip():
            hope = None
        sentence = rest[: hope.start() if hope else _sentence_end(rest)]
        sentence = _unbox(sentence).strip().rstrip(".").strip(" *\n\t")
        if sentence:
            return sentence, hope is not None, match.end()
    return None


def _unbox(sentence: str) -> str:
    r"""The content of the only box in a sentence: `$5 + 4 + 2 = \boxed{11}$` gives 11.

    If there are several boxes, or more of an answer follows the box, the whole sentence is the
    answer. An explanation ("…, where we have used that …") is not more of an answer.
    """
    boxes = _boxes(sentence) if "box" in sentence else []
    if not boxes:
        return sentence
    rest = sentence[sentence.rfind(boxes[-1]) + len(boxes[-1]) :]
    if len(boxes) == 1 and not _MORE.search(_EXPLANATION.split(rest, 1)[0]):
        return boxes[0]
    return _BOX.sub("", sentence)


def _sentence_end(text: str) -> int:
    """Where the first sentence ends: at a newline or a full stop outside of maths."""
    position = depth = 0
    while position < len(text):
        char = text[position]
        opening = _OPENING.match(text, position) if char in "\\$" else None
        if opening:
            end = text.find(_CLOSING[opening[0]], opening.end())
            inside = text[opening.end() : end]
            # A single "$" is money: nothing closes it within the sentence.
            if end >= 0 and "\n\n" not in inside and not re.search(r"[.!?]\s+[A-Z]", inside):
                position = end + len(_CLOSING[opening[0]])
                continue
        if char == "\\":
            position += 2
            continue
        depth += (char == "{") - (char == "}")
        if depth <= 0:
            if char == "\n":
                return position
            if char in ".!?。" and (position + 1 == len(text) or text[position + 1] in " \n\"')*"):
                return position
        position += 1
    return len(text)
