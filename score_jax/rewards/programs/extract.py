r"""Finds the code blocks in the text of an attempt.

`readings` returns several ways to read the text, the best first, each as the blocks of code that it
finds. Which block is the program is decided where it runs (sandbox/choose.py): only there is a
model's text parsed. Here it is only searched, and every search is linear.

First what no program contains is removed: marks of a chat template written as text, and all that
is outside of `[BEGIN]` and `[DONE]` (or `[END]`). (The paper's MBPP prompt asks for them and ends
with `[BEGIN]`, so a text may begin after that mark.) `[PYTHON]` and tags such as `<code>` count as
fences. Then the readings are:

1. the blocks fenced by ``` or ~~~ that name Python as their language;
2. these, and the blocks that name no language or an unknown one;
3. the same, where a fence inside a docstring closes its block;
4. the text before a first fence that only closes; without any fence, the whole text;
5. code between single backticks, and lines of code among prose: definitions, imports and
   assignments, at the left margin or indented as a whole.
"""

import re

BEGIN = "[BEGIN]"
_DONE = re.compile(r"\[DONE\]|^[ \t]*+\[END\][ \t]*+$", re.MULTILINE)

_END_MARK = re.compile(
    r"(?<![\"'])(?:<\|(?:endoftext|end_of_text|im_end|im_start|eot_id|eom_id|end|fim_\w+|file_sep)\|>"
    r"|<｜end▁of▁sentence｜>|(?:</s>|<eos>|<end_of_turn>|<EOT>)[ \t]*+$)",
    re.MULTILINE,
)
_BEGIN_MARK = re.compile(
    r"(?:<s>|<bos>|<｜[\w▁]{1,40}｜>|<\|im_start\|>assistant\n|<\|[\w▁]{1,40}\|>\n?)+"
)
_OPENING = re.compile(
    r"\[(?:PYTHON|CODE)\][ \t]*+\n?|^[ \t]*+<(?:code|python|solution)>[ \t]*+", re.MULTILINE
)
_CLOSING = re.compile(r"\[/(?:PYTHON|CODE)\]|</(?:code|python|solution)>[ \t]*+$", re.MULTILINE)

# A fence at the end of a line of prose, or of code, is put on a line of its own.
_LATE_FENCE = re.compile(
    r"(?<=[^\s`>])[ \t]*+(`{3,}+(?:(?:python|py)[\d.]*+)?)[ \t]*+$", re.MULTILINE | re.IGNORECASE
)
_FENCE = re.compile(
    r"^(?P<lead>[ \t>]*+(?:(?:[-*+]|\d{1,3}[.)])[ \t]++)?)"
    r"(?P<marks>`{3,}+|~{3,}+)(?P<info>[^\n`]*+)$",
    re.MULTILINE,
)
_LANGUAGE = re.compile(r"[\s{.]*+([^\s{},:=]*)")
_PYTHON = re.compile(r"(?:i?python|py|pycon|code|tool_code)[\d.]*(?:-repl|-console)?")
_OTHERS = {
    *("bash", "sh", "shell", "zsh", "cmd", "powershell", "json", "xml", "html", "css", "sql"),
    *("yaml", "java", "javascript", "js", "typescript", "ts", "c", "cpp", "c++", "csharp", "rust"),
    *("go", "ruby", "php", "perl", "diff", "latex"),
}
_CODE = re.compile(r"(?:async def|def|class|import|from|return|if|for|while|print|@)\b|@\w")
_TRIPLE = re.compile(r'"""|\'\'\'')

_INLINE = re.compile(r"(?<!`)(`{1,3}+)(?:python|py)?[\d.]*+([^`\n]++)\1(?!`)", re.IGNORECASE)
_INDENTED = re.compile(r"^([ \t]++)(?:async def|def|class)\b", re.MULTILINE)
_STARTS = re.compile(
    r"(?:async[ \t]+)?def[ \t]+\w|class[ \t]+\w|import[ \t]+\w|@\w"
    r"|from[ \t]+[\w.]+[ \t]+import\b|[A-Za-z_]\w*+[ \t]*+(?::[^\n=]*+)?=(?!=)"
)
_CONTINUES = re.compile(r"[ \t]|[)\]}]|$")


def readings(text: str) -> tuple[tuple[str, ...], ...]:
    """The ways to read a text, the best first: each the blocks of code in it, in its order.

    Empty if the text holds no code. No block is blank.
    """
    text = _without_marks(text)
    if not text.strip():
        return ()
    fences = list(_FENCE.finditer(text))
    blocks, closed = _blocks(text, fences, docstrings=True)
    found = [_python(blocks), _any(blocks), _any(_blocks(text, fences, docstrings=False)[0])]
    if not fences:
        found.append([text])
    elif not fences[0]["info"].strip():
        found.append([text[: fences[0].start()]])
    if not (found[0] and closed):
        found.append([one[2] for one in _INLINE.finditer(text) if _CODE.match(one[2].lstrip())])
        found.append(_among_prose(text))
        if indented := _INDENTED.search(text):
            found.append(_among_prose(re.sub(rf"(?m)^{indented[1]}", "", text)))
    kept = (tuple(block for block in blocks if block.strip()) for blocks in found)
    return tuple(dict.fromkeys(blocks for blocks in kept if blocks))


def _without_marks(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    if mark := _BEGIN_MARK.match(text):
        text = text[mark.end() :]
    if mark := _END_MARK.search(text):
        text = text[: mark.start()]
    text = _between_marks(text)
    text = _CLOSING.sub("\n```\n", _OPENING.sub("\n```python\n", text))
    return _LATE_FENCE.sub(r"\n\1", text)


def _between_marks(text: str) -> str:
    begin, done = text.rfind(BEGIN), _DONE.search(text)
    if done and (begin < 0 or done.start() < text.find(BEGIN)):
        return text[: done.start()]  # it follows the prompt's own [BEGIN]
    if begin < 0:
        return text
    inside = text[begin + len(BEGIN) :]
    return _DONE.split(inside, maxsplit=1)[0]


_Block = tuple[str, str]  # language, in lower case; code


def _python(blocks: list[_Block]) -> list[str]:
    return [code for language, code in blocks if _PYTHON.fullmatch(language)]


def _any(blocks: list[_Block]) -> list[str]:
    return [code for language, code in blocks if language not in _OTHERS]


def _blocks(
    text: str, fences: list[re.Match[str]], *, docstrings: bool
) -> tuple[list[_Block], bool]:
    """Every fenced block, and whether the last one closes; else it ends with the text.

    docstrings: fences inside a string in triple quotes neither open nor close a block.
    """
    found: list[_Block] = []
    opened: re.Match[str] | None = None
    last = {quotes: text.rfind(quotes) for quotes in ('"""', "'''")}
    quotes, searched = "", 0
    for fence in fences:
        if opened is None:
            opened, quotes, searched = fence, "", fence.end()
            continue
        for one in _TRIPLE.finditer(text, searched, fence.start()):
            quotes = "" if quotes == one[0] else quotes or one[0]
        searched = fence.end()
        if docstrings and quotes and last[quotes] > fence.end():
            continue
        same = fence["marks"][0] == opened["marks"][0]
        if same and len(fence["marks"]) >= len(opened["marks"]) and not fence["info"].strip():
            found.append(_block(opened, text[opened.end() : fence.start()]))
            opened = None
        elif fence["info"].strip():
            opened, quotes = fence, ""  # the block before this one never closed
    if opened is not None:
        found.append(_block(opened, text[opened.end() :]))
    return found, opened is None


def _block(fence: re.Match[str], code: str) -> _Block:
    language = _LANGUAGE.match(fence["info"])
    assert language  # it matches the empty text too
    code = code.removeprefix("\n")
    rest = fence["info"][language.end() :].strip()
    if _CODE.match(rest):  # the code begins on the line of the fence
        code = f"{rest}\n{code}"
    lead = fence["lead"]
    if quoted := lead.count(">"):
        code = re.sub(rf"(?m)^(?:[ \t]*+>[ \t]?){{1,{quoted}}}", "", code)
    elif lead:
        code = re.sub(rf"(?m)^[ \t]{{1,{len(lead)}}}", "", code)
    return language[1].lower(), code


def _among_prose(text: str) -> list[str]:
    """Lines that begin a definition, an import or an assignment, with those that belong to them."""
    found: list[list[str]] = []
    inside, quotes, decorated = False, "", False
    for line in text.split("\n"):
        if quotes:
            found[-1].append(line)
        elif _STARTS.match(line):
            if decorated:
                found[-1].append(line)
            else:
                found.append([line])
            inside, decorated = True, line.startswith("@")
        elif inside and _CONTINUES.match(line):
            found[-1].append(line)
        else:
            inside = decorated = False
            continue
        for one in _TRIPLE.findall(line):
            quotes = "" if quotes == one else quotes or one
    return ["\n".join(lines) for lines in found]
