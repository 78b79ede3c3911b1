"""Where the program is in a model's text."""

import time

import pytest

from score_jax.rewards.programs.extract import readings
from score_jax.rewards.sandbox.choose import choose

CODE = "def add(a, b):\n    return a + b\n"
STUB = 'def add(a, b):\n    """Adds."""\n'
FENCED = f"```python\n{CODE}```"


def program_of(text: str, names: tuple[str, ...] = ("add",), stub: str = "") -> str:
    return choose(readings(text), names, stub)


def three(text: str, stub: str = "") -> object:
    """What the program in a text adds 1 and 2 to."""
    module: dict[str, object] = {}
    exec(program_of(text, stub=stub), module)
    return module["add"](1, 2)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (CODE, CODE),
        (CODE.replace("\n", "\r\n"), CODE),
        (f"Here:\n```python\n{CODE}```\nDone.", CODE),
        (f"Here:\n```\n{CODE}```", CODE),
        (f"```Python3 title=x\n{CODE}```", CODE),
        (f"```python\nwrong\n```\nNo, rather:\n```python\n{CODE}```", CODE),
        (f"```python\n{CODE}```\nwhich prints\n```\n3\n```", CODE),
        (f"```python\n{CODE}```\nRun it:\n```bash\npython add.py\n```", CODE),
        ("```bash\npython add.py\n```", ""),
        (f"```python\n{CODE}", CODE),  # truncated, or never closed
        (f"```python\nwrong\n```python\n{CODE}```", CODE),
        (f"~~~python\n{CODE}~~~", CODE),
        (f"````python\n{CODE}````", CODE),
        (f"[BEGIN]\n{CODE}[DONE]", "\n" + CODE),
        (f"{CODE}[DONE]\n\nYour next task: …\n[BEGIN]\nother\n[DONE]", CODE),
        (f"[BEGIN]\nwrong\n[DONE] No.\n[BEGIN]\n{CODE}", "\n" + CODE),
        (f"[BEGIN]\n```python\n{CODE}```\n[DONE]", CODE),
        ("    return a + b\n", "    return a + b\n"),
        ("", ""),
        (" \n", ""),
        ("```python\n```", ""),
        ("[BEGIN][DONE]", ""),
    ],
)
def test_the_program_is_found(text, program):
    assert program_of(text) == program


USAGE = "\nprint(add(1, 'x'))\n"
INDENTED = CODE.replace("\n", "\n   ").rstrip(" ")


@pytest.mark.parametrize(
    "text",
    [
        # usage examples after the solution
        f"{FENCED}\nUse it:\n```python\nresult = add(3, 4)\nprint(result)\n```",
        f"{FENCED}\n```python\nfrom solution import add\nprint(add(3, 4))\n```",
        f"{FENCED}\n```python\n>>> add(1, 2)\n3\n```",
        f"```\n{CODE}```\nOutput:\n```\n7\n```",
        # a program in parts
        "```python\nK = 0\n```\n```python\ndef plus(a, b): return a + b + K\n```\nThen\n"
        "```python\ndef add(a, b): return plus(a, b)\n```\n```python\nprint(add(1, 2))\n```",
        "```python\ndef add(a, b): return plus(a, b)\n```\nwith\n"
        "```python\ndef plus(a, b): return a + b\n```",
        "```python\nimport operator\n```\n```python\ndef add(a, b): return operator.add(a, b)\n```",
        # tags
        *(
            f"```{tag}\n{CODE}```"
            for tag in (
                *("py", "Python", "PYTHON3", "python3.11", "py3", "ipython", "code", "solution"),
                *("{python}", "{.python .numberLines}", "python title=a.py", "python:a.py"),
            )
        ),
        # fences in odd places
        f"{CODE}```\n\nExplanation: done",
        f"{CODE}```\n\n```\n",
        f"Here: ```python\n{CODE}```",
        "```python\ndef add(a, b):\n    return a + b```",
        "```python def add(a, b): return a + b ```",
        "```python def add(a, b):\n    return a + b\n```",
        "Use `def add(a, b): return a + b`.",
        "Use ```py def add(a, b): return a + b```.",
        f"1. Define it:\n   ```python\n   {INDENTED}   ```",
        f"* code\n   ```\n   {INDENTED}   ```",
        f"- ```python\n   {INDENTED}   ```",
        "> ```python\n> def add(a, b):\n>     return a + b\n> ```",
        "```python\n" + "    def add(a, b):\n        return a + b\n" + "```",
        f"```python\n{CODE}\nThis adds.",
        f'```python\n{CODE}\ndef sub(a, b):\n    """Subtr',
        # docstrings
        "```python\ndef add(a, b):\n    '''\n    ```python\n    add(1, 2)\n    ```\n    '''\n"
        "    return a + b\n```\nprints\n```\n3\n```",
        f'```python\n"""\n```text\nadd(1, 2)\n```\n"""\n{CODE}```',
        f"```python\ndef add(a, b):\n    '''Adds\n```\nAgain:\n```python\n{STUB}    return 3\n```",
        # marks
        f"{FENCED}<|endoftext|>Human: more\n```python\ndef add(a, b): return 0\n```",
        f"<s>{CODE}</s>",
        f"<|im_start|>assistant\n{CODE}<|im_end|>",
        f"{CODE}<end_of_turn>",
        f"[PYTHON]\n{CODE}[/PYTHON]\n[TESTS]\nassert add(1, 2) == 4\n[/TESTS]",
        f"[PYTHON]\n{FENCED}\n[/PYTHON]",
        f"[BEGIN]\n{CODE}[END]",
        f"<code>\n{CODE}</code>",
        # characters
        FENCED.replace("    ", "\u00a0" * 4),
        f"```python\n\ufeff{CODE}```",
        f"\ufeff{CODE}",
        FENCED.replace("\n", "\r"),
        FENCED.replace("a + b", "a +\u200b b"),
        "```python\ndef add(a, b):\n    “Adds”\n    return a + b\n```",
        "```python\ndef add(a, b):\n    return a + b if a &lt; b else 0\n```",
        # sessions
        "```pycon\nPython 3\n>>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n```",
        "```ipython\nIn [1]: def add(a, b):\n   ...:     return a + b\n\nOut[1]: 3\n```",
        # prose
        f"Here is the function:\n\n{CODE}\nIt adds.",
        f"## Solution\n{CODE}\n## Notes\nfine",
        "Answer:\n\n    def add(a, b):\n        return a + b\n",
    ],
)
def test_the_program_is_found_as_a_reader_finds_it(text):
    assert three(text) == 3


@pytest.mark.parametrize(
    "text",
    [
        "    return a + b\n",
        "return a + b",
        "```python\n    return a + b\n```",
        "c = a + b\nreturn c\n",
        "c = a\n    c += b\n    return c\n",
        "  c = a + b\n  return c\n",
        "\treturn a + b\n",
        "        c = a\n        return c + b\n",
        "if a > b:\n        return 0\n    return a + b\n",
        "if a > b:\n    return 0\nreturn a + b\n",
        "    def plus(x, y):\n        return x + y\n    return plus(a, b)\n",
        "    return sum([\n        a,\n        b,\n    ])\n",
        f"    return a + b\n\n{USAGE}",
        f"    return plus(a, b)\n\ndef plus(a, b):\n    return a + b\n{USAGE}",
        "    return a + b\n\n\ndef add(a, b):\n    return 0\n",
        '    return a + b\n\n\ndef sub(a, b):\n    """Subtracts two num',
        "    return a + b\n\nThis function adds.\n",
        "    return a + b\n```\n\nThis adds.",
        "    return a + b<|endoftext|>",
        "Here is the rest:\n\n    return a + b\n",
        CODE,
        f"{CODE}{USAGE}",
        f"{STUB}    return a + b\n",
        f"The function:\n{FENCED}\nDone.",
    ],
)
def test_a_stub_is_continued_by_a_body_or_replaced_by_a_whole_function(text):
    assert three(text, STUB) == 3


@pytest.mark.parametrize(
    "text",
    [
        f"{FENCED}\nBetter:\n```python\ndef add(a, b):\n    return a - b\n```",
        "I do not know",
        "def add(a, b):",
        f"{CODE}\nraise SystemExit",
    ],
)
def test_nothing_is_mended_that_is_wrong(text):
    try:
        assert three(text) != 3
    except (SyntaxError, SystemExit):
        return


def test_a_script_is_the_last_python_block_that_does_something():
    script = "n = int(input())\nprint(n)\n"
    for text in (
        f"```python\n{script}```\nInput:\n```\n3\n```",
        f"```\n{script}```\nprints\n```\n3\n```",
        f"{script}```\n\nDone",
        script,
    ):
        assert program_of(text, ()) == script


def test_backticks_inside_a_line_fence_nothing():
    code = 'def tick():\n    return "```python"\n'
    assert program_of(f"```python\n{code}```") == code


@pytest.mark.parametrize(
    "piece", ["```\n", "```python\n", "[BEGIN]", "`", "[DONE]\n", " ", "~~~a\n"]
)
def test_a_megabyte_of_marks_takes_no_time(piece):
    began = time.monotonic()
    program_of(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - began < 5.0
