"""Answers made to hang, crash, fool or attack the grader: reward 0, in time, nothing left over."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from score_jax.rewards.answers.grade import grade_answer, grade_answers
from score_jax.rewards.workers import pool
from score_jax.rewards.workers.deadlines import DEADLINE_SEC
from tests.rewards.sandbox import sandboxes

GOLDS = (r"\frac{\sqrt{2}}{3}", "5", "(1,\\pi)", "x^5+x=3")

BOXED = {
    "tower": "9^{9^{9^{9}}}",
    "tower of two": "9^{9^9}",
    "plain tower": "9^9^9^9",
    "python tower": "9**9**9**9",
    "bracket tower": "((9^{99})^{99})^{99}",
    "factorial": "100000000!",
    "nested factorial": "((5!)!)!",
    "three digits factorial": r"999!\sqrt{2}",
    "many marks": "10!!!!!",
    "deep brackets": "(" * 140 + "1" + ")" * 140,
    "deep roots": r"\sqrt{" * 40 + "2" + "}" * 40,
    "deep sines": r"\sin(" * 19 + "x" + ")" * 19,
    "unbalanced": r"\frac{1}{2",
    "huge integer": "9" * 299,
    "too long integer": "9" * 301,
    "huge e": "1e999999999",
    "huge exponent": "2^{999999999}",
    "four digits": "9999^{9999}",
    "power of power": "(9999^{9999})^{9999}",
    "floor of huge": r"\lfloor \pi^{9999}\rfloor",
    "sine of huge": r"\sin(10^{9999})",
    "import": '__import__("os").system("touch hostile")',
    "eval in text": r"\text{eval(1)}",
    "quotes": 'x"; import os',
    "null": "5\x00",
    "surrogate": "\ud800",
    "right to left": "\u202e5",
    "zero width": "5\u200b",
    "arabic digit": "٥",
    "fullwidth digit": "５",
    "bell": "5\x07",
    "sum": r"\sum_{n=1}^{10^9} n",
    "product": r"\prod_{k=1}^{99999}k",
    "integral": r"\int_0^1 x^x dx",
    "binomial": r"\binom{99999}{5000}",
    "gamma": r"\Gamma(99999)",
    "wide matrix": r"\begin{pmatrix}" + "1&" * 100 + r"1\end{pmatrix}",
    "plus minus": r"\pm 1," * 40,
    "long list": r"\sqrt{2}," * 30,
    "many bars": "|" * 250,
    "many less": "1<" * 100 + "x",
    "big polynomial": "(x+1)^{9999}",
    "big difference": "(x+y+z)^{999}-(x+y+z)^{999}",
    "big equation": "x^{9999}+x^{9998}=0",
    "input": r"\input{/etc/passwd}",
    "define": r"\def\x{\x\x}\x",
    "newlines": "5\n\n6",
    "infinity": r"\infty-\infty",
    "division": r"\frac{1}{0}",
    "hedge": "5 (or 6, or anything)",
    "text hedge": r"5\text{ or any other number}",
    "equation hack": "8 = 5",
    "two equations": "5 = 6 = 5",
    "undone": r"2 \times 2 + 1",
    "undone root": r"\sqrt{25}",
    "or of many": " or ".join(map(str, range(60))),
    "the gold among others": "4, 5, 6",
    "a set with the gold": r"\{4,5,6\}",
    "a union of sets": r"\{5\}\cup\{6\}",
    "an interval round it": "[0,10]",
    "a point as an interval": "[5,5]",
    "more or less": r"5\pm 1",
    "at most": r"x\leq 5",
    "anything but": r"x\neq 6",
    "two names": "x=5, x=6",
    "nearly": "5.0000000000000001",
    "just below": "4.9999999999999999",
    "beyond floats": "1e400",
    "nan": "nan",
    "inf": "inf",
    "complex": "5+0i",
    "word joiner": "5\u2060",
    "soft hyphen": "5\u00ad",
    "bold digit": "\U0001d7d3",
    "superscript": "5\u00b2",
    "white ink": r"\textcolor{white}{6}5",
    "no ink": r"5\phantom{6}",
    "overprint": r"\rlap{6}5",
    "digits as text": r"5\text{6}",
    "a comment": "6%5",
    "its own command": r"\newcommand{\x}{5}\x",
    "shell": r"\immediate\write18{touch hostile}",
    "an endless loop": r"\loop\iftrue\repeat",
    "cases": r"\begin{cases}5&x>0\\6&x<0\end{cases}",
    "a box in the box": r"6\boxed{5}",
    "congruent": r"5\pmod{6}",
    "half a matrix": r"\begin{matrix}" * 12 + "5",
    "deep fractions": r"\frac{" * 40 + "5" + "}{1}" * 40,
    "deep delimiters": r"\left(" * 30 + "5" + r"\right)" * 30,
    "carets": "5" + "^" * 100,
    "ampersands": "&" * 250,
}
WHOLE = {
    "a million entries": r"\boxed{\begin{pmatrix}" + "1&" * 10**6 + r"1\end{pmatrix}}",
    "the box before the sentence": r"\boxed{5} The final answer is 6.",
    "the sentence before the box": r"The final answer is 5. No: \boxed{6}",
    "another box after the first": r"\boxed{5}\boxed{6}",
    "a hedged line": "#### 5 or 6",
    "a hedged sentence": "The final answer is 5 or 6.",
    "two boxes in the sentence": r"The final answer is $\boxed{6}$ or $\boxed{5}$.",
    "megabyte box": r"\boxed{" + "9" * 10**6 + "}",
    "megabyte then box": "a" * 10**6 + r"\boxed{1}",
    "opening boxes": r"\boxed{" * 150_000,
    "closing braces": "}" * 10**6,
    "dollars": "final answer is $" * 60_000,
    "backslashes": "\\" * 10**6,
    "nulls": "\x00" * 1_000,
    "surrogate outside": "\ud800\\boxed{7\ud800}",
    "unclosed after": r"\boxed{7} \boxed{{{{",
}
TEXTS = {name: rf"\boxed{{{answer}}}" for name, answer in BOXED.items()} | WHOLE


def grade_all(gold: str) -> dict[str, tuple[float, str, float]]:
    grade_answer(r"\boxed{x+1}", "1+x")  # starts the processes, which is not measured
    verdicts = {}
    for name, text in TEXTS.items():
        began = time.monotonic()
        grade = grade_answer(text, gold)
        verdicts[name] = (grade.reward, grade.reason, time.monotonic() - began)
    return verdicts


@pytest.mark.parametrize("gold", GOLDS)
def test_hostile_answers_get_nothing_within_the_deadline(gold):
    verdicts = grade_all(gold)
    assert {name: v for name, v in verdicts.items() if v[0] != 0.0} == {}
    assert {name: v for name, v in verdicts.items() if v[2] > DEADLINE_SEC + 1.0} == {}
    assert not Path("hostile").exists()


def test_a_hundred_hanging_answers_wait_one_deadline():
    hanging = [(rf"\boxed{{{hang(n)}}}", r"\sqrt{2}") for n in range(100)]
    honest = [(r"\boxed{\frac{2}{\sqrt{2}}}", r"\sqrt{2}"), (r"\boxed{2}", "2")]
    grade_answer(r"\boxed{x+1}", "1+x")
    began = time.monotonic()
    grades = grade_answers(hanging + honest, deadline_sec=2.0)
    took_sec = time.monotonic() - began
    assert [grade.reason for grade in grades[-2:]] == ["equal", "equal"]
    assert {grade.reason for grade in grades[:-2]} == {"timeout"}
    assert took_sec < 2.0 + 1.0


def hang(n: int) -> str:
    """Passes every check of limits.py, and takes the library minutes."""
    return r"\sin(" * 19 + f"x+{n}" + ")" * 19


def test_grading_continues_after_the_processes_are_killed():
    grade_answer(r"\boxed{x+2}", "2+x")
    os.kill(pool.shared()._spawner.pid, 9)
    assert grade_answer(r"\boxed{x+3}", "3+x").reward == 1.0


def test_closing_leaves_no_process():
    grade_answer(r"\boxed{x+4}", "4+x")
    spawner = pool.shared()._spawner.pid
    workers = sandboxes.descendants(spawner)
    assert workers
    pool.close()
    assert not any(sandboxes.alive(pid) for pid in (spawner, *workers))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killing_the_trainer_leaves_no_process_even_while_answers_hang():
    program = (
        "import threading, time\n"
        "from score_jax.rewards.workers import pool\n"
        "from score_jax.rewards.answers import grade_answer\n"
        "grade_answer(r'\\boxed{x+1}', '1+x')\n"
        f"text = r'\\boxed{{{BOXED['deep sines']}}}'\n"
        "threading.Thread(target=grade_answer, args=(text, r'\\sqrt{2}')).start()\n"
        "time.sleep(0.3)\n"
        "print(pool.shared()._spawner.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=repository()
    )
    assert trainer.stdout is not None
    spawner = int(trainer.stdout.readline())
    workers = sandboxes.descendants(spawner)
    assert workers
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    for _ in range(50):
        if not any(sandboxes.alive(pid) for pid in (spawner, *workers)):
            break
        time.sleep(0.1)
    assert not any(sandboxes.alive(pid) for pid in (spawner, *workers))


def repository() -> Path:
    return Path(__file__).resolve().parents[3]
