"""Where the program is in a model's text."""

import time

import pytest

from score_jax.rewards.programs.extract import program_of

CODE = "def add(a, b):\n    return a + b\n"


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
