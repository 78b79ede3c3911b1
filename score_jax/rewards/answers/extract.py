r"""Finds the final answer that an attempt states; never guesses from the numbers in its prose.

The last of these in the text is the answer: a "final answer is …" sentence (the form that the
paper's prompt asks for: `Final Answer: The final answer is $answer$. I hope it is correct.`), a
closed `\boxed{…}`. So an attempt may quote an earlier answer and correct it. A sentence that
continues as prose ("the final answer is in the form a + b …") is ignored if the text has a box, and
one that is working ("… is 15 * 8 = 120") if a `####` line follows; one that ends in "I hope it is
correct" always counts.

Where neither stands, and no box that never closes: the last `#### …` line that is no heading
(GSM8K), else the last "the answer is …" sentence or `Answer: …` label. A label begins a line and
ends the text: after it come no more numbers or formulas, as they would after a step's or a quoted
problem's label.

Not handled: answers in tables, in code, in other languages. Every scan is linear, and only the last
20,000 characters are read.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from score_jax.rewards.answers.spelling import PLAIN_NUMBER

WINDOW_CHARS = 20_000
SENTENCE_CHARS = 1_000
CANDIDATES = 3  # of each form, for lenient grading

_IS = r"answers?(?: to (?:the|this|your) (?:problem|question))? (?:is|are)(?![a-z])"
_FINAL = re.compile(rf"final {_IS}", re.IGNORECASE)
_ANSWER = re.compile(_IS, re.IGNORECASE)
_LABEL = re.compile(
    r"^[ \t]{0,8}(?:[-+][ \t])?([#*_]{0,6}[ \t]?[*_]{0,3}(?:\\(?:text(?:bf)?|section\*?)\{)?)"
    r"(?:(?:the|my|our)[ \t])?(final[ \t])?answer\}?[*_]{0,3}"
    r"(?:[ \t]?([:=])(?: ?\})?[*_]{0,3}|[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_HOPE = re.compile(r"I hope (?:it is|it's|they are) correct", re.IGNORECASE)
_BOX = re.compile(
    r"\\{1,2}(?:[bB]oxed|f?box|framebox)(?![A-Za-z])"
    r"|\x08oxed(?= ?\{)|(?<![A-Za-z\\])(?:b?oxed|fbox)(?= ?\{)"
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]", "\\begin": "\\end"}
_OPENING = re.compile(r"\\begin|\\[(\[]|\$\$|\$")
_PROSE = re.compile(r"[A-Za-z]{2}|[Aa] [a-z]{2}")
_HEADING = re.compile(r"[*_ ]*(?:[A-Za-z]{2}|[0-9]{1,2}[.):] +[*_]*[A-Za-z])")
_MORE = re.compile(r"[0-9]|(?<![A-Za-z])(?:or|and|not)(?![A-Za-z])", re.IGNORECASE)
_MATHS = re.compile(r"[0-9$\\]")
_FILLER = re.compile(
    r"(?:[\s:=*,]|(?:therefore|thus|hence|then|so|simply|just|indeed|exactly|clearly|obviously|still"
    r"|now|actually|of course"
    r"|equal to|given by|found to be)(?![A-Za-z]),?)+"
)
_EXPLANATION = re.compile(
    r"[,;]?\s\(?(?:because|since|where|due to|given that|as(?! (?:well|much|many)))(?![A-Za-z])"
    r"|[,;]?\s(?:by (?:the|using|symmetry|definition|[A-Z])|using|according to|in simplest form)"
    r"|(?:[,;:]?\s(?:which|so|by|obtained|this|see|and (?:we|this|that))(?![A-Za-z])|\s(?:--|—)\s)"
    r"(?!.*[0-9$\\])",
    re.DOTALL,
)
_HEDGE = re.compile(
    r"(?<![A-Za-z])(?:or|either|maybe|perhaps|possibly|probably|could|might|may|also|unless|otherwise"
    r"|alternatively|instead)(?![A-Za-z])",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"<\|[^|<>\s]{1,30}\|>|</?s>|<eos>|<end_of_turn>|\[/?INST\]|<<[^<>]*>>")
_FORMULA = re.compile(r"\$\$?([^$]{1,300})\$|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?", re.ASCII)


class _Found(NamedTuple):
    answer: str
    start: int
    end: int
    closed: bool = False  # "I hope it is correct" ends it


def extract(text: str) -> str | None:
    """The answer that `text` states, as written; None if it states none."""
    tail = text[-WINDOW_CHARS:]
    boxes = _boxes(tail) if "box" in tail or "oxed" in tail else None
    answers = "nswer" in tail or "NSWER" in tail  # a quick look: the common text has none
    final = next(_sentences(_FINAL, tail), None) if answers else None
    if final is not None:
        prose = boxes and not final.closed and _PROSE.match(final.answer)
        # Working, of which the line is the result: "the final answer is 15 * 8 = 120\n#### 120".
        working = "=" in final.answer and not final.closed and "####" in tail[final.end :]
        if not prose and not working and not (boxes and boxes[-1].start >= final.end):
            return final.answer
    if boxes:
        return boxes[-1].answer.strip() or None
    if boxes is not None and _BOX.search(tail):
        return None
    lines = _marked_lines(tail) if "####" in tail else []
    for line in lines:
        if not _HEADING.match(line):
            return line
    stated = next(_stated(tail), None) if answers else None
    if stated is not None:
        return stated.answer
    return lines[0] if lines else None


def candidates(text: str) -> list[str | None]:
    """All that may be meant as the answer, likely ones first, or [None].

    If nothing is stated, the last formula or number. For lenient grading only: some may be quoted,
    or of an earlier step.
    """
    tail = text[-WINDOW_CHARS:]
    found = [extract(tail)]
    found += [box.answer for box in _boxes(tail)[: -CANDIDATES - 1 : -1]]
    for sentences in (_sentences(_FINAL, tail), _stated(tail, anywhere=True)):
        found += [one.answer for one, _ in zip(sentences, range(CANDIDATES), strict=False)]
    found += _marked_lines(tail)[:CANDIDATES] if "####" in tail else []
    if not any(found):
        places = [(match.end(), match[match.lastindex or 0]) for match in _FORMULA.finditer(tail)]
        places += [(match.end(), match[0].rstrip(",")) for match in _NUMBER.finditer(tail)]
        found = [max(places)[1]] if places else []
    return list(dict.fromkeys(answer for answer in found if answer)) or [None]


def _boxes(text: str) -> list[_Found]:
    r"""All `\boxed{…}` with balanced braces, or with one bare token as in `\boxed 2`.

    A box inside of a box is part of the outer one's content: `\boxed{6\boxed{5}}` gives 6{5}. A box
    whose backslash was lost needs its braces.
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
    # From the first "ox" on: most texts have one only at their end.
    for match in _BOX.finditer(text, max(0, text.find("ox") - len("\\\\frameb"))):
        start = match.end()
        if start <= end:
            continue
        while start < len(text) and text[start].isspace():
            start += 1
        if start < len(text) and text[start] == "{":
            if start in close_of:
                end = close_of[start]
                inside = _BOX.sub("", text[start + 1 : end])
                found.append(_Found(inside, match.start(), end + 1))
        elif match[0][0] == "\\":
            token = re.match(r"[^\s${}\\]{1,64}", text[start : start + 64])
            if token:
                found.append(_Found(token[0].rstrip(".,;:"), match.start(), start + token.end()))
    return found


def _marked_lines(text: str) -> list[str]:
    """What follows each `####`, the last first; labels before the answer are dropped."""
    lines = []
    for rest in reversed(text.split("####")[1:]):
        rest = rest.strip("# \t\r\n")
        if PLAIN_NUMBER.fullmatch(rest):
            lines.append(rest)
            continue
        label = _LABEL.match(rest) or _ANSWER.search(rest.split("\n", 1)[0])
        line = (rest[label.end() :].lstrip(" \t\r\n:*") if label else rest).split("\n", 1)[0]
        if line := _tidy(line[:SENTENCE_CHARS]):
            lines.append(line)
    return lines


def _stated(text: str, *, anywhere: bool = False) -> Iterator[_Found]:
    """ "The answer is …" sentences and `Answer: …` labels, the last first."""
    markers = [(match, False) for match in _ANSWER.finditer(text)]
    markers += [(match, True) for match in _LABEL.finditer(text)]
    for marker, is_label in sorted(markers, key=lambda one: -one[0].end()):
        if is_label and not (marker[2] or marker[3] or marker[1].strip()):
            continue  # "Answer" alone on a line, with no sign of a heading
        found = _sentence(marker, text)
        if found is None:
            continue
        if is_label and not anywhere and _MATHS.search(text, found.end):
            continue
        yield found


def _sentences(marker: re.Pattern[str], text: str) -> Iterator[_Found]:
    """The sentences after the markers that are followed by text, the last first."""
    for match in reversed(list(marker.finditer(text))):
        found = _sentence(match, text)
        if found is not None:
            yield found


def _sentence(marker: re.Match[str], text: str) -> _Found | None:
    """The rest of the sentence after a marker."""
    start = marker.end()
    filler = _FILLER.match(text, start, start + SENTENCE_CHARS)
    start = filler.end() if filler else start
    rest = text[start : start + SENTENCE_CHARS]
    hope = _HOPE.search(rest)
    if hope and "\n\n" in rest[: hope.start()].rstrip():
        hope = None
    end = hope.start() if hope else _sentence_end(rest)
    answer = _tidy(_unbox(rest[:end]))
    return _Found(answer, marker.start(), start + end, hope is not None) if answer else None


def _tidy(answer: str) -> str:
    """The answer without an explanation, calculator notes, tokens of chat templates, bold marks."""
    if "<" in answer or "[" in answer:
        answer = _TOKEN.sub("", answer)
    explained = _EXPLANATION.search(answer) if " " in answer or "\n" in answer else None
    if explained and not _HEDGE.search(answer, explained.start()):
        before = answer[: explained.start()]
        # Not inside of maths.
        dollars = before.count("$") - before.count("\\$")
        if before.strip() and dollars % 2 == 0 and before.count("{") == before.count("}"):
            answer = before
    answer = answer.strip().rstrip(".").strip(" *\n\t")
    quoted = len(answer) > 2 and answer[0] == answer[-1] and answer[0] in "\"'"
    return answer[1:-1].strip() if quoted else answer


def _unbox(sentence: str) -> str:
    r"""The content of the only box in a sentence: `$5 + 4 + 2 = \boxed{11}$` gives 11.

    If there are several boxes, or more of an answer follows the box, the whole sentence is the
    answer. An explanation ("…, where we have used that …") is not more of an answer.
    """
    boxes = _boxes(sentence) if "box" in sentence or "oxed" in sentence else []
    if not boxes:
        return sentence
    rest = _EXPLANATION.split(sentence[boxes[-1].end :], maxsplit=1)[0]
    if len(boxes) == 1 and not _MORE.search(rest):
        return boxes[0].answer
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
