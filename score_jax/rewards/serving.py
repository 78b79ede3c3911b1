"""Calls a reward function of the user's own, in the worker processes; functions.py is the host's.

A function gets (problem, texts, gold) of one row, or lists of them for a batch, and by name those
of EXTRAS that it has parameters for. What it returns or raises goes back as one line of JSON:
[[[reward, reason], …], …] by row and attempt, or a text that says what is wrong.
"""

import asyncio
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import cloudpickle

from score_jax.problem import LARGEST, Grade, InputError, Problem, nearest
from score_jax.rewards import given
from score_jax.rewards.workers import spawner

# Of one row; of a batch lists of them, but for the last two.
EXTRAS = ("fields", "truncated", "tokens", "verdict", "stage", "step")

TRACEBACK_CHARS = 4_000  # the end, which names the error


def serve(control_fd: int, function: str, paths: str, memory_bytes: str) -> None:
    """Runs the spawner of workers that call the function; see spawner.py."""
    sys.path[:] = json.loads(paths)
    try:
        called = load(function)
        asks = asked_for(called)
    except InputError as error:
        spawner.fail(control_fd, str(error))
        return
    loop = asyncio.Runner()  # started on first use: clients of async functions belong to one loop

    def answer(
        batch: bool, problems: list[Any], texts_BA: list[Any], extras: dict[str, Any]
    ) -> str:
        rows = [Problem(**problem) for problem in problems]
        return json.dumps(_answer(called, loop, batch, rows, texts_BA, extras))

    says = json.dumps({"asks": asks, "batch": bool(getattr(called, "batch", False))})
    spawner.serve(control_fd, answer, memory_bytes=int(memory_bytes), says=says)


def load(function: str) -> Callable[..., Any]:
    """The function "module:function", "file.py:function" or "given:NAME". Raises: InputError."""
    where, _, name = function.rpartition(":")
    try:
        if function.startswith(given.PREFIX):
            return cloudpickle.load(sys.stdin.buffer)
        module = _file(where) if where.endswith(".py") else importlib.import_module(where)
        found = getattr(module, name)
    except (Exception, SystemExit) as error:  # anything that its module raises
        raise InputError(
            f"{function!r} cannot be imported ({_named(error)}). It must be "
            "'module:function', where `import module` works in the folder that the run starts in, "
            f"or 'file.py:function'.{_last_lines(error)}"
        ) from error
    if not callable(found):
        raise InputError(f"{function!r} is a {type(found).__name__}, not a function.")
    return found


def code_digest(function: str) -> str:
    """Tells the file of a function from another text of it; empty where there is no such file.

    Nothing is imported. What the file imports does not count.
    """
    where = function.rpartition(":")[0]
    file = where if where.endswith(".py") else None
    if not file and not function.startswith(given.PREFIX):
        path: Any = None
        for part in where.split("."):
            spec = importlib.machinery.PathFinder.find_spec(part, path)
            path = spec and spec.submodule_search_locations
            file = spec.origin if spec else None
            if not path:
                break
    try:
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def _file(path: str) -> Any:
    """The module that a file holds; it may import what lies beside it."""
    file = Path(path)
    name = file.stem if file.stem not in sys.modules else f"_reward_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def asked_for(function: Callable[..., Any]) -> list[str]:
    """Those of EXTRAS that the function takes by name. Raises: InputError if it needs others."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # some functions written in C
        return []
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return list(EXTRAS)
    by_place = [one for one in parameters if one.kind is not one.KEYWORD_ONLY][:3]
    named = [
        one for one in parameters if one not in by_place and one.kind is not one.VAR_POSITIONAL
    ]
    for one in named:
        if one.name not in EXTRAS and one.default is one.empty:
            raise InputError(
                f"it needs an argument {one.name!r}, and gets the problem, the texts and the gold, "
                f"and by name those it asks for of these. {nearest(one.name, EXTRAS)} What a row "
                "of your file holds besides is in `fields`."
            )
    return [one.name for one in named if one.name in EXTRAS]


def _answer(
    function: Callable[..., Any],
    loop: asyncio.Runner,
    batch: bool,
    problems: list[Problem],
    texts_BA: list[list[str]],
    extras: dict[str, Any],
) -> str | list[list[tuple[float, str]]]:
    """[reward, reason] of each attempt of each row, or a text that says what went wrong."""
    if "verdict" in extras:
        extras["verdict"] = [[Grade(*one) for one in row] for row in extras["verdict"]]
    golds = [problem.gold for problem in problems]
    by_place: tuple[Any, ...] = (problems, texts_BA, golds)
    if not batch:
        by_place = tuple(values[0] for values in by_place)
        extras = {k: v[0] if isinstance(v, list) else v for k, v in extras.items()}
    try:
        returned = function(*by_place, **extras)
        if inspect.isawaitable(returned):
            returned = loop.run(_awaited(returned))
        if not batch:
            return [_grades(returned, len(texts_BA[0]), "rewards, one for each attempt")]
        rows = _listed(returned, len(texts_BA), "lists of rewards, one for each row")
        return [
            _grades(row, len(texts), f"rewards for row {b} of the batch, one for each attempt")
            for b, (row, texts) in enumerate(zip(rows, texts_BA, strict=True))
        ]
    except WrongAnswer as wrong:
        return str(wrong)
    except Exception as error:
        return f"raised {_named(error)}{_last_lines(error)}"


class WrongAnswer(Exception):
    """What a function returned is not one finite number for each attempt."""


async def _awaited(value: Any) -> Any:
    return await value


def _grades(returned: Any, attempts: int, wanted: str) -> list[tuple[float, str]]:
    return [_grade(one, a) for a, one in enumerate(_listed(returned, attempts, wanted), start=1)]


def _listed(returned: Any, count: int, wanted: str) -> list[Any]:
    """As a list of `count`. Raises: WrongAnswer."""
    expected = f"It must return a list of {count} {wanted}."
    listed = None
    if not isinstance(returned, (str, bytes, Mapping, Set, Grade)):  # a set has no order
        try:
            listed = list(returned)
        except TypeError:  # a scalar, also one of numpy
            listed = None
    if listed is None:
        kind = type(returned).__name__
        raise WrongAnswer(f"returned {_short(returned)} (one {kind}), not a list. {expected}")
    if len(listed) != count:
        what = "rewards for" if "attempt" in wanted else "lists of rewards for"
        unit = "attempts" if "attempt" in wanted else "rows"
        raise WrongAnswer(f"returned {len(listed)} {what} {count} {unit}. {expected}")
    return listed


def _grade(one: Any, attempt: int) -> tuple[float, str]:
    """Reward and reason of a float, a Grade or (reward, reason). Raises: WrongAnswer."""
    reward, reason = one, None
    if isinstance(one, Grade):
        reward, reason = one.reward, one.reason
    elif isinstance(one, (tuple, list)) and len(one) == 2 and isinstance(one[1], str):
        reward, reason = one
    try:
        if isinstance(reward, (str, bytes)):
            raise TypeError
        value = float(reward)
    except (TypeError, ValueError):
        kind = type(reward).__name__
        raise WrongAnswer(
            f"returned {_short(reward)} ({kind}) as the reward of attempt {attempt}. It must be a "
            "number, a Grade, or (number, reason)."
        ) from None
    except OverflowError:  # an int beyond float64
        value = float("inf")
    if not abs(value) <= LARGEST:
        raise WrongAnswer(
            f"returned the reward {value} for attempt {attempt}, which no update can learn from. "
            f"It must be a finite number, at most {LARGEST:g}."
        )
    return value, str(reason) if reason is not None else "rewarded" if value > 0 else "unrewarded"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # raised by the user's own class
        return type(error).__name__


def _last_lines(error: BaseException) -> str:
    """The error's traceback from where the user's own code begins; empty if none of it is."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    ours = os.path.abspath(__file__)
    first = max((n for n, frame in enumerate(frames) if frame.filename == ours), default=-1) + 1
    finding = ("<frozen importlib", importlib.__file__)  # what looks for a module is Python's own
    theirs = [f for f in frames[first:] if not f.filename.startswith(finding)]
    if not theirs:
        return ""
    named = traceback.format_exception_only(type(error), error)
    lines = ["Traceback of your function (most recent call last):\n"]
    lines += [*traceback.format_list(theirs), *named]
    return "\n" + "".join(lines)[-TRACEBACK_CHARS:].rstrip()
