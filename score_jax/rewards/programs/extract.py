r"""Finds the program in the text of an attempt.

First, the text between `[BEGIN]` and `[DONE]`, or the whole text without these marks. (The paper's
MBPP prompt asks for them and ends with `[BEGIN]`, so a text may begin after that mark.) In it, the
last block fenced by ``` that names Python as its language; else the last block without a language;
without any block, all of it. Nothing is guessed: code in prose without a fence fails as a syntax
error.

Every scan is linear. The text is not parsed here, only in the sandbox.
"""

import re

BEGIN, DONE = "[BEGIN]", "[DONE]"

_FENCE = re.compile(r"^[ \t]{0,12}(```+|~~~+)[ \t]*([^\s`]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "python2", "{.python}", "pycon")


def program_of(text: str) -> str:
    """The program that `text` states; empty if it states none."""
    text = _between_marks(text.replace("\r\n", "\n"))
    blocks = _blocks(text)
    if not blocks:
        return "" if not text.strip() else text
    python = [code for language, code in blocks if language in _PYTHON]
    plain = [code for language, code in blocks if not language]
    chosen = python or plain
    return chosen[-1] if chosen else ""


def _between_marks(text: str) -> str:
    begin, done = text.rfind(BEGIN), text.find(DONE)
    if done >= 0 and (begin < 0 or done < text.find(BEGIN)):
        return text[:done]  # it follows the prompt's own [BEGIN]
    if begin < 0:
        return text
    inside = text[begin + len(BEGIN) :]
    return inside.split(DONE, 1)[0]


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of every fenced block; one that never closes ends with the text."""
    found = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1][0] == opened[1][0] and len(fence[1]) >= len(opened[1]) and not fence[2]:
            found.append((opened[2].lower(), text[opened.end() + 1 : fence.start()]))
            opened = None
        elif fence[2]:
            opened = fence  # the block before this one never closed
    if opened is not None:
        found.append((opened[2].lower(), text[opened.end() + 1 :]))
    return found
