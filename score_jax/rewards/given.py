"""Reward functions that are given as Python objects, and so have no name in a settings file.

    name = named(function)     "module:function" where a worker can import it, else "given:NAME"
    pickled("given:NAME")      what a worker reads on its standard input; nothing is written to disk

The second form is for functions of a notebook or a script, closures and lambdas. They belong to
the process that they were given in: a run that names one goes on from the same script.
"""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle

from score_jax.problem import InputError

PREFIX = "given:"
_given: dict[str, bytes] = {}  # pickled, by name


def named(function: Callable[..., Any]) -> str:
    """What config.rewards.function takes for this function. A later one of a name replaces it."""
    if not callable(function):
        raise InputError(
            f"the reward is {function!r}, which is not a function. Give a function of (problem, "
            "texts, gold) that returns one number for each attempt, or 'module:function'."
        )
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if _is_importable(function, module or "", name):
        return f"{module}:{name}"
    given = PREFIX + (re.sub(r"\W+", "_", name.rpartition(".")[2]).strip("_") or "reward")
    try:
        _given[given] = cloudpickle.dumps(function)
    except Exception as error:  # anything that pickling an object of the user's raises
        raise InputError(
            f"the reward function {name!r} cannot be sent to the processes that grade "
            f"({type(error).__name__}: {error}). It uses something that belongs to this process, "
            "such as an open file or a lock: make that inside of the function."
        ) from error
    return given


def pickled(name: str) -> bytes:
    """The function as it was when it was given; b"" for names of another form.

    Raises: InputError if this process has no such function.
    """
    if name.startswith(PREFIX) and name not in _given:
        plain = name.removeprefix(PREFIX)
        raise InputError(
            f"the reward {plain!r} is a Python function that a script or a notebook gave to "
            "score_jax.Task, and this process has not got it. Go on from that script, or write the "
            f"function to a file and set config.rewards.function=FILE.py:{plain} (of a run that "
            "has begun, in a new work directory)."
        )
    return _given.get(name, b"")


def digest(name: str) -> str:
    """Tells a given function from an earlier one of its name; empty for other names."""
    return hashlib.sha256(pickled(name)).hexdigest()[:16] if name.startswith(PREFIX) else ""


def _is_importable(function: Callable[..., Any], module: str, name: str) -> bool:
    """Whether `import module` in a worker gives this very function by its name."""
    found = sys.modules.get(module)
    if module in ("", "__main__") or getattr(found, name, None) is not function:
        return False
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return bool(spec and spec.origin and spec.origin == getattr(found, "__file__", None))
