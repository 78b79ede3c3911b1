"""Rewards of your own: a Python function that a config names, in processes that can be killed.

    config.rewards.function = "my_project.rewards:polite"

    def polite(problem, texts, gold):       # my_project/rewards.py
        return [float("please" in text) for text in texts]

The function is called once per row with the Problem (problem.py), the texts of all its attempts in
order, and the problem's gold. It returns one reward per attempt: 0 or 1, as flips from wrong to
right are counted, or a Grade with a reason of its own. It grades every problem of the run, whatever
graders they name. Example: examples/rewards/conversation.py in the repository.

The function runs in worker processes without jax. They import its module once, from the folder
that the run starts in or the trainer's sys.path. A call that takes longer than
config.rewards.timeout_sec is killed and earns 0 ("timeout"); in a large batch this can happen after
half a second. If the function raises, the row earns 0 ("function_error"). It is called once before
a run, so that a mistake in it stops the run, which would else train on zeros. It runs with your
rights, without a sandbox: never let it run a program that a model wrote (programs/ does that).
"""

import dataclasses
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from score_jax.problem import Grade, InputError, Problem
from score_jax.rewards.workers import deadlines, pool, spawner

Function = Callable[[Problem, Sequence[str], str], Sequence[Any]]

MEMORY_BYTES = 8 << 30
START_SEC = 60.0  # for the call before the run, which may have to load something


def grade(
    function: str,
    problems: Sequence[Problem],
    texts_BA: Sequence[Sequence[str]],
    deadline_sec: float,
) -> list[list[Grade]]:
    """Grades of every attempt of every row, by the function named "module:function"."""
    questions = [
        (dataclasses.asdict(problem), list(texts))
        for problem, texts in zip(problems, texts_BA, strict=True)
    ]
    answers = deadlines.ask(_work(function), questions, deadline_sec)
    return [_grades(answer, len(texts)) for answer, texts in zip(answers, texts_BA, strict=True)]


def prepare(function: str, problem: Problem, attempts: int) -> None:
    """Calls the function once, with empty texts.

    Raises: InputError if it cannot be imported, raises, takes START_SEC, or returns no rewards.
    """
    where = f"config.rewards.function={function!r}"
    try:
        pool.shared(_work(function))
    except pool.SpawnerFailed as error:
        raise InputError(f"{where} cannot be used: {error}") from error
    question = (dataclasses.asdict(problem), [""] * attempts)
    (answer,) = deadlines.ask(_work(function), [question], START_SEC)
    if answer in ("timeout", "crash"):
        raise InputError(
            f"{where} ended with {answer!r} when it was called for problem {problem.id} with empty "
            f"texts. It must return {attempts} rewards within {START_SEC:.0f} s and not end its "
            "process."
        )
    if isinstance(failure := json.loads(answer), str):
        raise InputError(
            f"{where} failed when it was called for problem {problem.id} with empty texts (an "
            f"attempt may be empty): {failure}"
        )


def _work(function: str) -> tuple[str, ...]:
    paths = list(dict.fromkeys(os.path.abspath(path) for path in ("", *sys.path)))
    return ("functions", function, json.dumps(paths))


def _grades(answer: str, attempts: int) -> list[Grade]:
    if answer in ("timeout", "crash"):
        return [Grade(0.0, answer)] * attempts
    grades = json.loads(answer)
    if isinstance(grades, str):
        return [Grade(0.0, "function_error")] * attempts
    return [Grade(reward, reason) for reward, reason in grades]


# In the worker processes.


def serve(control_fd: int, function: str, paths: str) -> None:
    """Runs the spawner of workers that call the function; see spawner.py."""
    sys.path[:] = json.loads(paths)
    try:
        called = load(function)
    except InputError as error:
        spawner.fail(control_fd, str(error))
        return

    def answer(problem: dict[str, Any], texts: list[str]) -> str:
        return json.dumps(_answer(called, Problem(**problem), texts))

    spawner.serve(control_fd, answer, memory_bytes=MEMORY_BYTES)


def load(function: str) -> Function:
    """The function "module:function". Raises: InputError."""
    module_name, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # anything that its module raises
        raise InputError(
            f"{function!r} cannot be imported ({type(error).__name__}: {error}). It must be "
            "'module:function', where `import module` works in the folder that the run starts in."
        ) from error
    if not callable(found):
        raise InputError(f"{function!r} is a {type(found).__name__}, not a function.")
    return found


def _answer(function: Function, problem: Problem, texts: list[str]) -> str | list[list[Any]]:
    """[reward, reason] of each attempt, or a text that says what went wrong."""
    try:
        rewards = list(function(problem, texts, problem.gold))
        if len(rewards) != len(texts):
            return f"it returned {len(rewards)} rewards for {len(texts)} attempts"
        grades = [one if isinstance(one, Grade) else _plain(one) for one in rewards]
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
    if wrong := [one.reward for one in grades if one.reward not in (0.0, 1.0)]:
        return f"it returned the reward {wrong[0]}; rewards must be 0 or 1"
    return [[float(one.reward), str(one.reason)] for one in grades]


def _plain(reward: Any) -> Grade:
    return Grade(float(reward), "rewarded" if reward else "unrewarded")
