"""The quickstart's problems: last digits of sums; an attempt states the answer, then its working.

A problem adds two to five one-digit numbers and asks for the last digit of the sum. An attempt is
the answer, ':', the running last digits, '.':

    3+8+6+5+6=1:1728.?8:1728.     the first answer, 1, is wrong, but its working ends in 8; the
    7+8+5    =9:50.?0:50.         second answer reads that working

A model of two layers cannot state the last digit of a long sum at once. But each running digit is
one table look-up, and the second attempt can read the working of the first. The base model learns
from a corpus of two-attempt documents whose authors never check their own working:

  * first answers: on short sums one too small, often when the last addition crosses a ten; on long
    sums nearly always only the sum of the last two numbers;
  * second answers: a copy; mostly one less if the first is 0 or 5 ("doubt"); and on short sums,
    once in two hundred, the right one.

So plain reinforcement learning soon finds right short answers and copying, and the second attempt
stays a copy. Reading the working is rare and has to be found. The corpus was made to show this
effect within minutes; docs/task.md says so.

Held out: sums of three numbers or more whose operands hash to 0 modulo 7. They are neither in the
corpus nor trained on. Sums of two are the hundred entries of the addition table. A model cannot
work out an entry it has never seen, so none of these is held out or tested.
"""

import dataclasses

import numpy as np

from score_jax.problem import InputError, Problem

NAME = "arithmetic"
OPERANDS = (2, 3, 4, 5)
OPERAND_SHARES = (0.25, 0.40, 0.20, 0.15)
LONG = 4  # a sum of this many operands or more is long
PROMPT_WIDTH = 10  # 9+9+9+9+9=
TRAIN_PROBLEMS = 20_000
TEST_PROBLEMS = 2_048

CROSSING_SLIP, OTHER_SLIP = 0.65, 0.20  # short sums: the first answer is one too small
LONG_RIGHT = 0.05  # long sums: the first answer is right; else the last two numbers' sum
SUSPICIOUS = (0, 5)  # first answers that look wrong to the corpus's authors
DOUBT = 0.80  # after a suspicious answer: the second one is one less
SHORT_FIX = 0.005  # short sums: the second answer is right. Decides whether plain RL collapses.


@dataclasses.dataclass(frozen=True)
class Document:
    """One row of the corpus: a problem and both attempts, without their end tokens."""

    prompt: str
    attempts: tuple[str, ...]


def problems(split: str, seed: int = 0, count: int | None = None) -> list[Problem]:
    """Problems of a split, drawn with replacement from its sums.

    The test problems are the same for every seed. count: by default 20,000 to train, 2,048 to test.
    """
    if split not in ("train", "test"):
        raise InputError(f"arithmetic has splits train and test, not {split!r}.")
    test = split == "test"
    count = (TEST_PROBLEMS if test else TRAIN_PROBLEMS) if count is None else count
    drawn = _draw(np.random.default_rng(2 if test else [seed, 1]), count, test=test)
    return [_problem(f"{NAME}/{split}/{i}", operands) for i, operands in enumerate(drawn)]


def _problem(identity: str, operands: list[int]) -> Problem:
    return Problem(
        id=identity,
        prompt=_prompt(operands),
        gold=str(sum(operands) % 10),
        grader="first_character",
        tags={"level": str(len(operands))},
    )


def documents(seed: int, step: int, count: int) -> list[Document]:
    """The corpus's documents of one step, generated from (seed, step)."""
    rng = np.random.default_rng([seed, 3, step])
    return [_document(operands, rng.random(3)) for operands in _draw(rng, count, test=False)]


def documents_with_verdicts(seed: int, step: int, count: int) -> list[Document]:
    """The corpus for selective revision: "=" alone keeps the answer, "+" begins another one."""
    written = []
    for document in documents(seed, step, count):
        first, second = document.attempts
        revised = "=" if second == first else f"+{second}"
        written.append(dataclasses.replace(document, attempts=(first, revised)))
    return written


def of_question(question: str) -> Problem:
    """The problem of a typed sum, with or without blanks and '='.

    Raises: InputError for anything but two to five one-digit numbers with '+' between them."""
    operands = question.replace(" ", "").removesuffix("=").split("+")
    if len(operands) not in OPERANDS or not all(
        o.isascii() and o.isdigit() and len(o) == 1 for o in operands
    ):
        raise InputError(
            f"{question!r} is not a question of this task. Type a sum of {min(OPERANDS)} to "
            f"{max(OPERANDS)} one-digit numbers, such as 7+8+5."
        )
    return _problem("question", [int(operand) for operand in operands])


def held_out(operands: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Which sums are kept for testing; [N, 5] operands (0 beyond `length`) -> [N] bool."""
    place = 11 ** np.arange(operands.shape[1])
    code = ((operands + 1) * (np.arange(operands.shape[1]) < length[:, None])) @ place
    # A multiplicative hash, so that neighbouring sums are not held out together.
    return (length > min(OPERANDS)) & ((code * 2654435761 % 2**32 >> 7) % 7 == 0)


def _draw(rng: np.random.Generator, count: int, *, test: bool) -> list[list[int]]:
    """`count` lists of operands from one side of the split, lengths by OPERAND_SHARES."""
    drawn: list[list[int]] = []
    shares = np.array(OPERAND_SHARES)
    if test:
        shares[0] = 0.0  # none of the shortest is held out
    lengths = rng.choice(OPERANDS, count, p=shares / shares.sum())
    waiting = lengths
    while len(waiting):
        operands = rng.integers(0, 10, (len(waiting), max(OPERANDS)))
        operands *= np.arange(max(OPERANDS)) < waiting[:, None]
        accepted = held_out(operands, waiting) == test
        drawn += [
            row[:k].tolist() for row, k in zip(operands[accepted], waiting[accepted], strict=True)
        ]
        waiting = waiting[~accepted]
    return drawn


def _document(operands: list[int], chance: np.ndarray) -> Document:
    running = np.cumsum(operands) % 10
    right, short = int(running[-1]), len(operands) < LONG
    if short:
        crosses = int(running[-2]) + operands[-1] >= 10
        slips = chance[0] < (CROSSING_SLIP if crosses else OTHER_SLIP)
        first = (right - slips) % 10
    else:
        first = right if chance[0] < LONG_RIGHT else sum(operands[-2:]) % 10
    if first in SUSPICIOUS and chance[1] < DOUBT:
        second = (first - 1) % 10
    elif short and chance[2] < SHORT_FIX:
        second = right
    else:
        second = first
    working = "".join(map(str, running[1:]))
    return Document(_prompt(operands), (f"{first}:{working}", f"{second}:{working}"))


def _prompt(operands: list[int]) -> str:
    return "+".join(map(str, operands)).ljust(PROMPT_WIDTH - 1) + "="
