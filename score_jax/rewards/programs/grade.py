"""Grades programs: 1 if all tests hold, else 0 with the reason. Programs run in the sandbox.

The tests run in a process of their own (tester.py). The program runs in another process, which can
reach nothing (forkserver.py). Together they are killed at their deadline.

Reasons: passed, failed (a test did not hold), error (the program, or a test with it, raised),
syntax, exit (the program asked to end), crash (its process ended), timeout, memory, no_program
(none in the text), refused (Python cannot read the text), too_long.

The gold of a problem whose grader is "program" is a JSON object. With tests in Python:

    {"tests": ["assert add(1, 2) == 3", …],  statements, run one after another
     "entry_points": ["add"],                the names that the program must define for them
     "setup": "import math",                 run before the tests, in their process
     "prelude": "def poly(xs, x): …",        helpers from the prompt: the program gets them too, and
                                             the tests call these, not the program's own
     "stub": "def add(a, b):\\n"}            the function's beginning, for texts that go on from it

Only "tests" is required. Without entry points, the one name that tests use and nobody defines is
it. Nobody: not the tests, their setup or the prelude, and it is no built-in and no standard module.
Where there are several such names, the gold must say which of them are the program's; all others
need an import or a definition in the setup. Only entry points are taken from the program, so it
cannot replace what tests compare with. A prelude must not define what the program is to write.

Tests and their setup may import Python's standard library and the packages of
config.rewards.packages, which programs may import too; nothing else, however score_jax is
installed.

With tests by standard input and output, the program is run as a script, once for each test:

    {"tests": [{"stdin": "1 2\\n", "stdout": "3\\n"}, …]}      "prelude" may be given too

What it prints must be the expected text, blanks at the end of each line and blank lines at the end
of the output aside. All runs together have the one deadline. A script that ends with a status other
than 0 has not passed.
"""

import ast
import builtins
import dataclasses
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

from score_jax.problem import Grade, InputError
from score_jax.rewards.programs.extract import readings
from score_jax.rewards.remembered import Remembered
from score_jax.rewards.sandbox import start, tester
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
    entry_points: Sequence[str] = (),
) -> Grade:
    """Whether a program passes tests.

    tests: statements, such as MBPP's asserts, or HumanEval's check and a call of it.
    setup, prelude, entry_points: see the gold above. timeout_sec: wall clock for program and tests
    together.
    Safe from any process and thread. The first call starts the sandbox, which takes a second.
    Raises: InputError for tests that cannot be used, and if no sandbox works on this machine; see
    sandbox/start.py.
    """
    if isinstance(tests, str):
        tests = [tests]
    job = Job(program, tuple(tests), setup, prelude, entry_points=tuple(entry_points))
    job = _checked(job, start.packages())
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
    return grade_programs(
        [dataclasses.replace(read_gold(gold), blocks=readings(text)) for text, gold in pairs],
        timeout_sec,
    )


def read_gold(gold: str) -> Job:
    """A gold as a job without its program. Raises: InputError if it is unusable."""
    return _read_gold(gold, start.packages())


@functools.lru_cache(maxsize=20_000)
def _read_gold(gold: str, packages: tuple[str, ...]) -> Job:
    try:
        fields = json.loads(gold)
        tests = fields["tests"]
        texts = {name: fields.get(name, "") for name in ("setup", "prelude", "stub")}
        entry_points = fields.get("entry_points", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "the gold of a program must be a JSON object with a list 'tests', but this one is not: "
            f"{gold[:80]!r} ({error})."
        ) from error
    by_output = isinstance(tests, list) and any(isinstance(one, dict) for one in tests)
    if not (
        isinstance(tests, list)
        and tests
        and (by_output or all(isinstance(one, str) for one in tests))
        and all(isinstance(one, str) for one in texts.values())
    ):
        raise InputError(
            "the gold of a program needs 'tests', a list of at least one statement as text, or of "
            "at least one {'stdin': text, 'stdout': text}. Its 'setup', 'prelude' and 'stub' must "
            f"be text. This one differs: {gold[:80]!r}."
        )
    if not isinstance(entry_points, list) or not all(
        isinstance(one, str) and one.isidentifier() for one in entry_points
    ):
        raise InputError(
            "'entry_points' of a program's gold must be a list of the names that the program "
            f'defines, such as ["add"], not {entry_points!r}.'
        )
    setup, prelude, stub = texts.values()
    names = tuple(entry_points)
    job = Job("", tuple(tests), setup, prelude, stub=stub, entry_points=names)
    if by_output:
        return dataclasses.replace(job, tests=(), cases=_cases(tests))
    return _checked(job, packages)


def _cases(tests: list[Any]) -> tuple[tuple[str, str], ...]:
    for one in tests:
        if not (
            isinstance(one, dict)
            and set(one) == {"stdin", "stdout"}
            and all(isinstance(text, str) for text in one.values())
        ):
            raise InputError(
                "a test by standard input and output has two texts, 'stdin' and 'stdout', and "
                f"stands among tests of its own kind only. This one differs: {str(one)[:80]!r}."
            )
    return tuple((one["stdin"], one["stdout"]) for one in tests)


def _checked(job: Job, packages: Sequence[str]) -> Job:
    """The job with its entry points. Raises: InputError for tests that no program can pass.

    Also for tests that a program could forge, because they take more from it than they should.
    """
    for source in (*job.tests, job.setup, job.prelude):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise InputError(
                f"a test does not compile ({error}), so no program can pass it: {source[:200]!r}."
            ) from error
        for module in _imported(tree) - sys.stdlib_module_names - set(packages):
            raise InputError(
                f"a test imports {module!r}, and tests may import Python's standard library and "
                f"config.rewards.packages ({', '.join(packages) or 'none'}) only, so no program "
                f"could pass it. Install {module} and name it there, or write the test without "
                f"it: {source[:200]!r}."
            )
    statements = [one for one in (job.setup, *job.tests) if one.strip()]
    _, wanted = tester.names(statements, tester.defined(job.prelude))
    caught = tester.exceptions(statements)
    nobodys = [name for name in wanted if name not in caught and name not in job.entry_points]
    if job.entry_points and nobodys and not _built_in(nobodys):
        raise InputError(
            f"tests use {_list(nobodys)}, which neither they nor 'setup' define, and "
            f"'entry_points' ({', '.join(job.entry_points)}) does not name. Import or define it in "
            "'setup'. If the program is to define it, add it to 'entry_points'."
        )
    if job.entry_points:
        return job
    if len(nobodys) > 1:
        raise InputError(
            f"tests use {_list(nobodys)}, which neither they nor 'setup' define. What of these "
            'must the program define? Name it in the gold, such as "entry_points": '
            f"[\"{nobodys[0]}\"], and import or define all others in 'setup': a program could "
            "define them so that wrong values pass."
        )
    return dataclasses.replace(job, entry_points=tuple(nobodys))


def _built_in(names: Sequence[str]) -> bool:
    return all(hasattr(builtins, name) for name in names)


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _imported(tree: ast.AST) -> set[str]:
    """The packages that code imports, apart from what it imports if it can."""
    tried = {
        inner for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in tried:
            continue
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def _unrunnable(job: Job) -> str:
    """The reason for a program that need not be run; empty for others."""
    code = [job.program, *itertools.chain(*job.blocks)]
    if not any(one.strip() for one in code):
        return "no_program"
    if sum(map(len, code)) > MAX_PROGRAM_CHARS:
        return "too_long"
    if any("\x00" in one or any("\ud800" <= c <= "\udfff" for c in one) for one in code):
        return "refused"
    return ""


def _digest(job: Job) -> bytes:
    return hashlib.sha256(repr(job).encode()).digest()
