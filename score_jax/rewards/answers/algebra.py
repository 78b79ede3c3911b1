"""Algebra with math-verify, in worker processes that can be killed.

Only the spawner imports this file: pool.py runs `serve` there, and each fork of it is a worker.

Not handled here: deadlines (deadlines.py), what may be asked at all (limits.py).
"""

import contextlib
import functools
import logging
import re
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from score_jax.rewards.answers.compare import Refused, same
from score_jax.rewards.answers.limits import refusal
from score_jax.rewards.answers.parse import read
from score_jax.rewards.workers import spawner

WORKER_MEMORY_BYTES = 1 << 30
DIGITS = 60
AGREEMENT = 1e-40  # relative

_BARE_LOG = re.compile(r"\\log(?! ?_)(?![A-Za-z])")
_DECIMAL = re.compile(r"(\^ ?)?([0-9]*)\.([0-9]+)")
# Two points with all letters positive, three with mixed signs; letters take the primes in turn.
_SIGNS = ((1, 1, 1), (1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1))
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)


class Unparseable(Exception):
    """One of the two expressions cannot be read."""


def decide(gold: str, answer: str) -> str:
    """The reason for two normalised answers: equal, unequal, unparseable, refused or crash."""
    try:
        return "equal" if same(read(gold), read(answer), equal_expressions) else "unequal"
    except Unparseable:
        return "unparseable"
    except Refused:
        return "refused"
    except Exception:  # MemoryError and RecursionError included
        return "crash"


def equal_expressions(gold: str, answer: str) -> bool:
    """Whether two LaTeX expressions are equal for all values of their letters.

    Raises: Unparseable; Refused for an answer that the library must not see.
    """
    if refusal(answer):
        raise Refused(answer)
    if "\\ln" in gold + answer:
        # A log without a base is natural beside an ln; math-verify takes it to the base 10.
        gold, answer = (_BARE_LOG.sub(r"\\ln", one) for one in (gold, answer))
    ours, theirs = _parse(gold), _parse(answer)
    if isinstance(ours, sympy.Expr) and isinstance(theirs, sympy.Expr):
        if ours == theirs and not ours.has(sympy.nan, sympy.zoo):
            return True  # sympy has brought both to one form
        digits = DIGITS + -(-max(len(gold), len(answer)) // 32) * 32  # the same for most answers
        agree = _agree_at_points(ours, theirs, digits)
        if agree is not None:
            return agree
    elif isinstance(ours, sympy.Expr) or isinstance(theirs, sympy.Expr):
        sets = sympy.Set | sympy.Tuple
        if not (isinstance(ours, sets) or isinstance(theirs, sets)):
            return False
    return bool(verify(ours, theirs, timeout_seconds=None, numeric_precision=DIGITS))


@functools.lru_cache(maxsize=512)
def _parse(latex: str) -> Any:
    # No units: numbers.py has removed them, and math-verify would take the m of "5m" for one.
    spelling = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="none",
        equations=False,
    )
    # Decimals as fractions: math-verify would compare floats rounded to 6 places.
    exact = _DECIMAL.sub(_as_fraction, latex)
    parsed = parse(
        f"${exact}$",
        extraction_config=[
            LatexExtractionConfig(boxed_match_priority=-1, normalization_config=spelling)
        ],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # type: ignore[arg-type]  # deadlines.py keeps the clock
    )
    if not parsed:
        raise Unparseable(latex)
    # math-verify takes i for a letter, so (1 + i)^2 would not equal 2i.
    units = {one: sympy.I for one in parsed[0].free_symbols if one.name in ("i", "imath")}
    return parsed[0].xreplace(units) if units else parsed[0]


def _as_fraction(decimal: re.Match[str]) -> str:
    fraction = f"\\frac{{{decimal[2]}{decimal[3]}}}{{1{'0' * len(decimal[3])}}}"
    # Braces only where an exponent needs them: elsewhere the parser takes them for a set.
    return f"{decimal[1]}{{{fraction}}}" if decimal[1] else fraction


def _agree_at_points(ours: Any, theirs: Any, digits: int) -> bool | None:
    """Whether two expressions have the same value at five points; None if the points do not tell.

    Values are compared relatively, to over 60 digits, so that two tiny numbers can differ. A point
    where neither value is real is outside of the domain, unless one of the expressions contains the
    imaginary unit.
    """
    names = sorted({symbol.name for symbol in ours.free_symbols | theirs.free_symbols})
    complex_meant = ours.has(sympy.I) or theirs.has(sympy.I)
    agreed = 0
    for point in range(len(_SIGNS) if names else 1):
        left, right = (_value(one, tuple(names), point, digits) for one in (ours, theirs))
        if left is None or right is None:
            continue
        if not left.is_real and not right.is_real and not complex_meant:
            continue
        size = max(abs(left), abs(right))
        if size < AGREEMENT:
            continue  # both may be zero: the digits do not show it
        if abs(left - right) > AGREEMENT * size:
            return False
        agreed += 1
    return True if agreed >= (2 if names else 1) else None


@functools.lru_cache(maxsize=4096)  # a gold is compared with the answers of many samples
def _value(expression: Any, names: tuple[str, ...], point: int, digits: int) -> Any:
    """The value of an expression where its letters have the point's values; None if it has none."""
    value_of = {}
    for place, name in enumerate(names):
        prime = _PRIMES[(place + 3 * point) % len(_PRIMES)]
        sign = _SIGNS[point][place % 3]
        value_of[name] = sympy.Rational(sign * (prime + 7 * place), 8 + 3 * point)
    with contextlib.suppress(ArithmeticError, TypeError, ValueError, AttributeError, KeyError):
        places = {symbol: value_of[symbol.name] for symbol in expression.free_symbols}
        value = expression.xreplace(places).evalf(digits)
        if value.is_number and value.is_finite and value.is_comparable is not None:
            return value
    return None


def serve(control_fd: int) -> None:
    """Runs the spawner of workers that do algebra; see spawner.py."""
    logging.disable(logging.CRITICAL)
    warm_up()
    spawner.serve(control_fd, decide, memory_bytes=WORKER_MEMORY_BYTES)


def warm_up() -> None:
    """Loads the libraries and the parser's tables, so that a new worker is fast from the start."""
    for gold, answer in (
        (r"\frac{1+\sqrt{5}}{2}", r"\frac{\sqrt{5}}{2}+0.5"),
        (r"2\pi x^2-\sqrt[3]{4}y_1", r"-\sqrt[3]{4}\cdot y_1+2x^{2}\pi"),
        (r"e^{i\pi/2}+\log_2 x", r"i+\frac{\ln x}{\ln 2}"),
        (r"\sin^2 (x+1)+|x|", r"1-\cos^{2}(x+1)+|x|"),
        ("y=2x+3", "2x-y+3=0"),
    ):
        decide(gold, answer)
