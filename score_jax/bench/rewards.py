"""How fast answers and programs are graded on this machine.

Three kinds of work, each a batch as in a training step: programs in the sandbox with all its
layers, answers that are plain numbers (as in GSM8K), and answers that need algebra (as some in
MATH). Nothing is cached between repetitions. The time to start processes is not counted.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from score_jax.problem import Grade
from score_jax.rewards.answers import grade as answers
from score_jax.rewards.programs import grade as programs
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.tester import Job
from score_jax.rewards.workers import pool

PROGRAMS, NUMBERS, FORMULAS = 300, 2_000, 200  # of one repetition
TIMEOUT_SEC = 30.0

# Stand-ins for MBPP's references: as long, and tested by three assertions each.
_TASKS = (
    (
        "def common(a, b):\n    return tuple(sorted(set(a) & set(b)))",
        "common((3, 4, 5, 6), (5, 7, 4, {n})) == (4, 5)",
    ),
    (
        "import heapq\ndef largest(xs, n):\n    return heapq.nlargest(n, xs)",
        "largest([25, 35, 22, {n} % 20, 14, 65], 2) == [65, 35]",
    ),
    (
        "import re\ndef words(text):\n    return re.findall(r'\\w{{4,}}', text)",
        "words('a quick brown fox {n:04d}') == ['quick', 'brown', '{n:04d}']",
    ),
    (
        "def cost(grid):\n    best = [0] * len(grid[0])\n    for row in grid:\n"
        "        best = [x + min(best[max(0, i - 1):i + 1]) for i, x in enumerate(row)]\n"
        "    return best[-1]",
        "cost([[1, 2, 3], [4, 8, 2], [1, 5, {n}]]) == 4 + {n}",
    ),
    (
        "class Account:\n    def __init__(self, x):\n        self.x = x\n"
        "    def add(self, y):\n        self.x += y\n        return self.x",
        "Account(5).add({n}) == 5 + {n}",
    ),
)


def measure(reps: int, mbpp: str = "") -> dict[str, Any]:
    """Programs and answers graded per second, over `reps` repetitions after one warm-up.

    mbpp: MBPP's published mbpp.jsonl, to grade its references; empty: grades the stand-ins.
    Returns: for "programs", "numbers" and "formulas" `NAME_per_sec` (median), `NAME_spread`
      [least, most] and `NAME_right` (the share graded right, which must be 1); `sandbox`, `cores`.
    """
    work: dict[str, tuple[Callable[..., Sequence[Grade]], Sequence[Any]]] = {
        "programs": (programs.grade_programs, _references(mbpp) if mbpp else _stand_ins()),
        "numbers": (answers.grade_answers, _numbers()),
        "formulas": (answers.grade_answers, _formulas()),
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {"sandbox": start.shared().kind, "cores": cores}
    for name, (grade, given) in work.items():
        rates, right = [], 0
        for repetition in range(1 + reps):
            programs.forget()
            answers.forget()
            began = time.perf_counter()
            grades = grade(given, TIMEOUT_SEC)
            if repetition:
                rates.append(len(given) / (time.perf_counter() - began))
                right += sum(one.reward == 1.0 for one in grades)
        result[f"{name}_per_sec"] = statistics.median(rates)
        result[f"{name}_spread"] = [min(rates), max(rates)]
        result[f"{name}_right"] = right / (len(given) * reps)
    return result


def _stand_ins() -> list[Job]:
    jobs = []
    for n in range(PROGRAMS):
        code, test = _TASKS[n % len(_TASKS)]
        tests = tuple("assert " + test.format(n=1000 + n + step) for step in range(3))
        jobs.append(Job(code.format(n=n), tests))
    return jobs


def _references(path: str) -> list[Job]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [
        Job(row["code"], tuple(row["test_list"]), row["test_setup_code"]) for row in rows[:PROGRAMS]
    ]


def _numbers() -> list[tuple[str, str]]:
    """Worked solutions of GSM8K's length; the last line is the answer."""
    working = "So she has 3 * 4 = <<3*4=12>>12 apples and gives some away.\n" * 5
    return [(f"{working}#### {n:,}", f"{n}") for n in range(1_000, 1_000 + NUMBERS)]


def _formulas() -> list[tuple[str, str]]:
    return [
        (
            rf"So it is \boxed{{\frac{{{n}}}{{\sqrt{{3}}}}+{n}x}}.",
            rf"{n}x+\frac{{{n}\sqrt{{3}}}}{{3}}",
        )
        for n in range(5, 5 + FORMULAS)
    ]


def close() -> None:
    """Ends the processes that grading started."""
    pool.close()
    start.close()
