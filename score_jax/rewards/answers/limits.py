r"""Refuses answers that the symbolic library must never see.

A process that hangs can be killed, but each kill costs a deadline. So towers of exponents, long
factorials and sums with bounds are refused here, and all commands outside of a list. The checks
read characters, not meaning, and refuse too much rather than too little. Input is the output of
spelling.normalise.
"""

import re

from score_jax.rewards.answers.spelling import matching

MAX_POWER_DEPTH = 2
MAX_EXPONENT_DIGITS = 4
MAX_FACTORIAL_DIGITS = 3
MAX_NESTING = 20

_CHARACTERS = re.compile(r"[A-Za-z0-9 \\{}()\[\].,+\-*/^_=<>|!&%']*", re.ASCII)
_COMMANDS = frozenset(
    """
    frac sqrt pi cdot times div pm mp infty cup cap setminus in emptyset mathbb leq geq neq
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lg det gcd min max
    lfloor rfloor lceil rceil binom begin end overline bar vert mid ell imath
    angle triangle perp parallel
    alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho sigma
    tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
    """.split()  # noqa: SIM905
)
_ENVIRONMENTS = frozenset(("matrix", "pmatrix", "bmatrix", "vmatrix", "array"))
_ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{([^}]*)\}")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)")
_LONG_NUMBER = re.compile(rf"[0-9]{{{MAX_EXPONENT_DIGITS + 1}}}")
_FACTORIAL = re.compile(r"([^!]?) ?(!+)")
_DIGITS_BEFORE = re.compile(r"([0-9]+) ?!")
_BINOMIAL = re.compile(r"\\binom ?\{([^{}]*)\} ?\{([^{}]*)\}")
_APART = re.compile(r"[0-9.] +[0-9.]")


def refusal(text: str) -> str | None:
    """Why `text` must not reach the symbolic library; None if it may."""
    if not _CHARACTERS.fullmatch(text) or "__" in text:
        return "characters outside of formulas"
    for command in _COMMAND.findall(_ENVIRONMENT.sub(" ", text)):
        if command not in _COMMANDS and command not in ("{", "}", "|", "\\", "%"):
            return f"command \\{command}"
    if not _ENVIRONMENTS.issuperset(_ENVIRONMENT.findall(text)):
        return "environment"
    if _APART.search(text):
        return "two numbers side by side"
    if power_depth(text) > MAX_POWER_DEPTH:
        return "tower of exponents"
    if any(_LONG_NUMBER.search(exponent) for exponent in _exponents(text)):
        return "long exponent"
    if re.search(r"\\sqrt ?\[[^\]]{5,}\]", text):
        return "long index of a root"
    for before, marks in _FACTORIAL.findall(text):
        if len(marks) > 1 or not (before.isdigit() or before.isalpha()):
            return "factorial of a term"
    if any(len(digits) > MAX_FACTORIAL_DIGITS for digits in _DIGITS_BEFORE.findall(text)):
        return "long factorial"
    for match in _BINOMIAL.findall(text):
        if any(len(part.strip()) > MAX_FACTORIAL_DIGITS for part in match):
            return "long binomial"
    if "\\binom" in _BINOMIAL.sub("", text):
        return "nested binomial"
    return None


def unbalanced(text: str) -> bool:
    """Whether braces do not match."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth < 0:
            return True
    return depth != 0


def too_deep(text: str) -> bool:
    """Whether brackets nest deeper than in any real answer."""
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth = max(0, depth - 1)
    return deepest > MAX_NESTING


def power_depth(text: str) -> int:
    """How deep powers are nested: 1 for `x^2y^2`, 3 for `2^{3^{4^5}}` and `((9^9)^9)^9`."""
    return _depth(text, 0)[0]


def _depth(text: str, position: int) -> tuple[int, int]:
    """Depth from `position` to the end of its bracket, and the position after that."""
    deepest = previous = 0
    while position < len(text):
        if text[position] == " ":
            position += 1
            continue
        if text[position] in ")]}":
            return deepest, position + 1
        if text[position] == "^":
            exponent, position = _atom(text, position + 1)
            previous = 1 + max(previous, exponent)
        else:
            previous, position = _atom(text, position)
        deepest = max(deepest, previous)
    return deepest, position


def _atom(text: str, position: int) -> tuple[int, int]:
    """Depth of one bracket, command or character, and the position after it."""
    while text[position : position + 1] == " ":
        position += 1
    if text[position : position + 1] in ("(", "[", "{"):
        return _depth(text, position + 1)
    command = _COMMAND.match(text, position)
    return 0, command.end() if command else position + 1


def _exponents(text: str) -> list[str]:
    """All exponents: one character, or all of a bracket."""
    found = []
    for caret in re.finditer(r"\^ ?", text):
        start = caret.end()
        end = matching(text, start) if text[start : start + 1] in ("(", "[", "{") else None
        found.append(text[start : start + 1 if end is None else end])
        # `2^99999` raises one digit in LaTeX, but plain-text readers raise them all.
        found.extend(re.findall(r"^-?[0-9]+", text[start:]))
    return found
