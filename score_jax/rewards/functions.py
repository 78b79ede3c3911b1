"""Rewards of your own: Python functions that a config names, in processes that can be killed.

    config.rewards.function = "my_project.rewards:polite"     or "my_rewards.py:polite"
    score_jax.Task(…, reward=polite)                          a Python object; see given.py

    def polite(problem, texts, gold):       # my_project/rewards.py
        return [float("please" in text) for text in texts]

The function is called once per row with the Problem (problem.py), the texts of all its attempts in
order, and the problem's gold. It returns one reward per attempt: any finite number, a Grade with a
reason of its own, or (number, reason). It may be `async def`. By name it gets what it has a
parameter for:

    fields      what a row of your file holds besides, by name
    truncated   for each attempt, whether it hit its limit
    tokens      for each attempt, how many the policy wrote
    verdict     for each attempt, the Grade of the problem's own grader ("builtin")
    stage, step where the run is; "evaluation" and 0 in evaluations

A function marked with `batch` (in the settings of its term, or as an attribute: polite.batch =
True) is called once for all rows of a step and process, with lists of problems, texts, golds and
so on, and returns a list of rewards for each row. terms.py combines several functions.

The functions run in worker processes without jax. They import its module once, from the folder
that the run starts in or the trainer's sys.path; a worker is a fork of the process that did. So
load a model for an accelerator in the first call, not on import, with one worker and no memory
limit. What a function prints is not kept. Limits says how calls are made.

A call that hangs is killed ("timeout"), and one that ends its process is a "crash": its rows earn
what the settings say. If the function raises, or returns what is not a finite number for each
attempt, the run stops with its traceback and the row. It is called once before a run. It runs with
your rights, without a sandbox: never let it run a program that a model wrote (programs/ does that).
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from score_jax.problem import Grade, InputError, Problem, expanded
from score_jax.rewards import given
from score_jax.rewards.remembered import Remembered
from score_jax.rewards.workers import calls, pool

START_SEC = 60.0  # at least, for the call before the run, which may have to load something


@dataclasses.dataclass(frozen=True)
class Limits:
    """How functions are called."""

    timeout_sec: float = 60.0  # of a call, from when it starts
    workers: int = 0  # calls side by side; 0: one for each CPU, 2 to 8
    retries: int = 0  # of a call that failed
    remember: int = 0  # judged rows that are not asked about again; the oldest are dropped first
    environment: tuple[str, ...] = ()  # variables that must be set
    memory_gib: int = 8  # of a worker; 0: no limit


@dataclasses.dataclass(frozen=True)
class Rows:
    """What functions get about a batch of B rows."""

    problems: Sequence[Problem]
    texts_BA: Sequence[Sequence[str]]
    truncated_BA: np.ndarray | None = None  # bool; None: none is
    tokens_BA: np.ndarray | None = None  # int; None: not known, 0
    stage: str = "evaluation"
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Asks:
    """What a function wants."""

    extras: tuple[str, ...]  # of serving.EXTRAS
    batch: bool  # whether it says that it takes a batch


def asks(function: str, limits: Limits) -> Asks:
    """What the function wants. Raises: InputError if it cannot be imported."""
    found = json.loads(_start(function, limits).says)
    return Asks(tuple(found["asks"]), found["batch"])


def grade(
    function: str,
    rows: Rows,
    limits: Limits,
    *,
    batch: bool = False,
    verdicts: Sequence[Sequence[Grade]] = (),
) -> list[list[Grade] | str]:
    """The function's Grades of every row; "timeout" or "crash" of a row whose call failed.

    batch: one call for all rows. verdicts: those of the built-in grader, if the function asks.
    Raises: InputError with the function's own text if it raised or returned something else.
    """
    wants = asks(function, limits)
    asked = _questions(rows, wants, verdicts)
    keys = [json.dumps(one, sort_keys=True, default=str) for one in asked]
    known = _judged(function, limits) if limits.remember else None
    found: dict[int, str] = {}
    first: dict[str, int] = {}  # of equal rows the one that is asked
    for number, key in enumerate(keys):
        if known and (answer := known.get(key)):
            found[number] = answer
        else:
            first.setdefault(key if known else str(number), number)
    whole = batch or wants.batch
    groups = [[*first.values()]] if whole and first else [[number] for number in first.values()]
    answers = calls.answers(
        lambda: _start(function, limits),
        [_question(asked, group, whole) for group in groups],
        limits.timeout_sec,
        retries=limits.retries,
        fails=lambda answer: not answer.startswith("["),
    )
    with contextlib.closing(answers):
        for number, answer in answers:
            judged = _by_row(answer, function, rows, groups[number])
            for row, one in zip(groups[number], judged, strict=True):
                found[row] = one
                if known and one not in calls.FAILED:
                    known.add(keys[row], one)
    return [_grades(found[n if n in found else first[key]]) for n, key in enumerate(keys)]


def prepare(
    function: str, problem: Problem, attempts: int, limits: Limits, *, batch: bool = False
) -> None:
    """Calls the function once, with empty texts.

    Raises: InputError if it cannot be imported, raises, takes too long, or returns no rewards.
    """
    where = f"the reward function {function!r}"
    if missing := [name for name in limits.environment if name not in os.environ]:
        raise InputError(
            f"config.rewards.environment names {', '.join(missing)}, which is not set here, so "
            f"{where} would miss it. Set it (export {missing[0]}=…), or take the name out."
        )
    asks(function, limits)  # an error of its module is not one of a call with empty texts
    empty = [Grade(0.0, "no_answer")] * attempts
    slow = dataclasses.replace(limits, timeout_sec=max(START_SEC, limits.timeout_sec), remember=0)
    rows = Rows([problem], [[""] * attempts])
    try:
        (answer,) = grade(function, rows, slow, batch=batch, verdicts=[empty])
    except InputError as error:
        raise InputError(
            f"{error}\nIt was called with empty texts before the run, as an attempt may be empty."
        ) from error
    if isinstance(answer, str):
        raise InputError(
            f"{where} ended with {answer!r} when it was called for problem {problem.id} with empty "
            f"texts. It must return {attempts} rewards within {slow.timeout_sec:.0f} s "
            "(config.rewards.function_timeout_sec) and not end its process, as sys.exit(), "
            "KeyboardInterrupt and too much memory do (config.rewards.function_memory_gib)."
        )


def _start(function: str, limits: Limits) -> pool.Pool:
    """The pool of the function. Raises: InputError if it cannot be imported."""
    try:
        return pool.shared(_work(function, limits), limits.workers, given.pickled(function))
    except (pool.SpawnerFailed, pool.SpawnerGone) as error:
        raise InputError(f"the reward function {function!r} cannot be used: {error}") from error


def _work(function: str, limits: Limits) -> tuple[str, ...]:
    paths = list(dict.fromkeys(os.path.abspath(path) for path in ("", *sys.path)))
    where, _, name = function.rpartition(":")
    if where.endswith(".py"):
        function = f"{os.path.abspath(expanded(where))}:{name}"
    return ("serving", function, json.dumps(paths), str(limits.memory_gib << 30))


def _questions(
    rows: Rows, wants: Asks, verdicts: Sequence[Sequence[Grade]]
) -> list[dict[str, Any]]:
    """What the function gets about each row."""
    asked = []
    for b, (problem, texts) in enumerate(zip(rows.problems, rows.texts_BA, strict=True)):
        plain, cut, tokens = _plain(problem), rows.truncated_BA, rows.tokens_BA
        extras: dict[str, Any] = {
            "fields": plain.get("fields", {}),
            "truncated": [False] * len(texts) if cut is None else cut[b].tolist(),
            "tokens": [0] * len(texts) if tokens is None else tokens[b].tolist(),
            "verdict": [[one.reward, one.reason] for one in verdicts[b]] if verdicts else [],
            "stage": rows.stage,
            "step": rows.step,
        }
        extras = {name: extras[name] for name in wants.extras}
        asked.append({"problem": plain, "texts": list(texts), "extras": extras})
    return asked


def _plain(problem: Problem) -> dict[str, Any]:
    """JSON-able: a row of a file may hold what is not, such as a date."""
    return json.loads(json.dumps(dataclasses.asdict(problem), default=str))


def _question(asked: list[dict[str, Any]], group: list[int], batch: bool) -> tuple[Any, ...]:
    some = [asked[number] for number in group]
    extras: dict[str, Any] = {}
    for name in some[0]["extras"]:
        values = [one["extras"][name] for one in some]
        extras[name] = values[0] if name in ("stage", "step") else values
    return batch, [one["problem"] for one in some], [one["texts"] for one in some], extras


def _by_row(answer: str, function: str, rows: Rows, group: list[int]) -> list[str]:
    """The answer to a call by row. Raises: InputError if the function went wrong."""
    if answer in calls.FAILED:
        return [answer] * len(group)
    judged = json.loads(answer)
    if isinstance(judged, str):
        named = f"problem {rows.problems[group[0]].id}"
        named += f" and {len(group) - 1} more" if len(group) > 1 else ""
        texts = ", ".join(repr(text[:200]) for text in rows.texts_BA[group[0]])
        raise InputError(
            f"the reward function {function!r} {judged}\nThe row: {named}, attempts: {texts}."
        )
    return [json.dumps(one) for one in judged]


def _grades(answer: str) -> list[Grade] | str:
    if answer in calls.FAILED:
        return answer
    return [Grade(reward, reason) for reward, reason in json.loads(answer)]


_remembered: dict[tuple[str, ...], Remembered] = {}  # by function and number of rows


def _judged(function: str, limits: Limits) -> Remembered:
    key = (function, given.digest(function), str(limits.remember))
    if key not in _remembered:
        _remembered[key] = Remembered(limits.remember)
    return _remembered[key]
