"""Grades programs: 1 if all tests hold, else 0 with the reason. Programs run in the sandbox.

The tests run in a process of their own (tester.py). The program runs in another process, which can
reach nothing (forkserver.py). Together they are killed at their deadline.

Reasons: passed, failed (a test did not hold), error (the program, or a test with it, raised),
syntax, exit (the program asked to end), crash (its process ended), timeout, memory, no_program
(none in the text), refused (Python cannot read the text), too_long.

The gold of a problem whose grader is "program" is a JSON object:

    {"tests": ["assert add(1, 2) == 3", …],  statements, run one after another
     "setup": "import math",                 run before the tests, in their process
     "prelude": "def poly(xs, x): …",        helpers from the prompt: the program gets them too, and
                                             the tests call these, not the program's own
     "stub": "def add(a, b):\\n"}            put before a program that begins with an indented line

Only "tests" is required. A prelude must not define what the program is to write.
"""

import ast
import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

from score_jax.problem import Grade, InputError
from score_jax.rewards.programs.extract import program_of
from score_jax.rewards.remembered import Remembered
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.tester import Job

TIMEOUT_SEC = 5.0
MAX_PROGRAM_CHARS = 2_000_000
_remembered = Remembered(50_000, ("passed", "failed", "error", "syntax", "exit"))
forget = _remembered.clear  # for measurements


def grade_program(
    program: str,
    tests: Sequence[str],
    setup: str = "",
    timeout_sec: float = TIMEOUT_SEC,
    *,
    prelude: str = "",
) -> Grade:
    """Whether a program passes tests.

    tests: statements, such as MBPP's asserts, or HumanEval's check and a call of it.
    setup, prelude: see the gold above. timeout_sec: wall clock for program and tests together.
    Safe from any process and thread. The first call starts the sandbox, which takes a second.
    Raises: InputError if no sandbox works on this machine; see sandbox/start.py.
    """
    if isinstance(tests, str):
        tests = [tests]
    job = Job(program, tuple(tests), setup, prelude)
    return grade_programs([job], timeout_sec, overtime=False)[0]


def grade_programs(
    jobs: Sequence[Job], timeout_sec: float = TIMEOUT_SEC, *, overtime: bool = True
) -> list[Grade]:
    """Grades programs together: equal ones once, many at a time, each within its own deadline.

    A hundred that never end delay the others by one deadline, not by a hundred.
    overtime: on a busy machine a program that waited for a core may run past its deadline, so that
    rewards do not depend on load.
    """
    reason_of = {
        job: _unrunnable(job) or _remembered.get(_digest(job)) or "" for job in dict.fromkeys(jobs)
    }
    to_run = [job for job, reason in reason_of.items() if not reason]
    if to_run:
        reasons = start.run(to_run, timeout_sec, overtime=overtime)
        for job, reason in zip(to_run, reasons, strict=True):
            reason_of[job] = reason
            _remembered.add(_digest(job), reason)
    return [Grade(float(reason_of[job] == "passed"), reason_of[job]) for job in jobs]


def grade_text(text: str, gold: str) -> Grade:
    """Whether the program that an attempt states passes the gold's tests."""
    return grade_texts([(text, gold)])[0]


def grade_texts(pairs: Sequence[tuple[str, str]], timeout_sec: float = TIMEOUT_SEC) -> list[Grade]:
    """Grades (text, gold) pairs together. Raises: InputError for a gold that cannot be used."""
    jobs = []
    for text, gold in pairs:
        job, stub = read_gold(gold)
        program = program_of(text)
        if stub and program[:1] in (" ", "\t", "\n"):
            program = stub + program
        jobs.append(dataclasses.replace(job, program=program))
    return grade_programs(jobs, timeout_sec)


@functools.lru_cache(maxsize=20_000)
def read_gold(gold: str) -> tuple[Job, str]:
    """A gold as a job without its program, and the stub. Raises: InputError if it is unusable."""
    try:
        fields = json.loads(gold)
        tests = fields["tests"]
        texts = {name: fields.get(name, "") for name in ("setup", "prelude", "stub")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "the gold of a program must be a JSON object with a list 'tests', but this one is not: "
            f"{gold[:80]!r} ({error})."
        ) from error
    if not (
        isinstance(tests, list)
        and tests
        and all(isinstance(one, str) for one in (*tests, *texts.values()))
    ):
        raise InputError(
            "the gold of a program needs 'tests', a list of at least one statement as text. Its "
            f"'setup', 'prelude' and 'stub' must be text. This one differs: {gold[:80]!r}."
        )
    for source in (*tests, texts["setup"], texts["prelude"]):
        try:
            ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise InputError(
                f"a test does not compile ({error}), so no program can pass it: {source[:200]!r}."
            ) from error
    return Job("", tuple(tests), texts["setup"], texts["prelude"]), texts["stub"]


def _unrunnable(job: Job) -> str:
    """The reason for a program that need not be run; empty for others."""
    if not job.program.strip():
        return "no_program"
    if len(job.program) > MAX_PROGRAM_CHARS:
        return "too_long"
    if "\x00" in job.program or any("\ud800" <= one <= "\udfff" for one in job.program):
        return "refused"
    return ""


def _digest(job: Job) -> bytes:
    return hashlib.sha256(repr(job).encode()).digest()
