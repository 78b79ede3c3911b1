"""What an attempt earns: the sum of named terms, each a function of the user's own or "builtin".

    reward = sum of weight * term          solved: the reward of one term reaches solved_at

Without terms the problems' own graders ("builtin") decide alone.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from score_jax.problem import LARGEST, Grade, InputError, Problem
from score_jax.rewards import functions
from score_jax.rewards.functions import Limits, Rows
from score_jax.rewards.workers import calls

BUILTIN = "builtin"  # the graders that the problems name; as a function of a term


@dataclasses.dataclass(frozen=True)
class Term:
    """One part of the reward."""

    function: str = BUILTIN  # "module:function", "file.py:function" or "builtin"
    weight: float = 1.0
    batch: bool = False  # one call for all rows
    solves: bool = False  # whether an attempt is solved shows in this term


@dataclasses.dataclass(frozen=True)
class Terms:
    """How attempts are paid."""

    of: Mapping[str, Term] = dataclasses.field(default_factory=lambda: {BUILTIN: Term()})
    solved_at: float = 1.0  # reward of the term that solves
    failed: float = 0.0  # reward of an attempt whose grading or program hung or died
    limits: Limits = dataclasses.field(default_factory=Limits)

    @property
    def solver(self) -> str:
        """The term that says so, else the built-in one, else the first."""
        marked = [name for name, term in self.of.items() if term.solves]
        return [*marked, *self.builtin, *self.of][0]

    @property
    def builtin(self) -> list[str]:
        """Those that are the problems' own graders."""
        return [name for name, term in self.of.items() if term.function == BUILTIN]

    @property
    def own(self) -> dict[str, Term]:
        """Those that are functions of the user's own."""
        return {name: term for name, term in self.of.items() if term.function != BUILTIN}

    def needs_builtin(self) -> bool:
        """Whether the problems' graders are asked. Raises: InputError; see functions.asks."""
        wanted = (functions.asks(term.function, self.limits).extras for term in self.own.values())
        return len(self.own) < len(self.of) or any("verdict" in extras for extras in wanted)


@dataclasses.dataclass(frozen=True)
class Paid:
    """What the attempts of B rows earn."""

    reward_BA: np.ndarray  # float32
    solved_BA: np.ndarray  # bool
    reasons: list[list[str]]  # [B][A], of the term that solves
    of_terms: dict[str, np.ndarray]  # name -> [B, A] float32, unweighted; NaN where its call failed
    failed: list[str]  # [B] "TERM: timeout" or "TERM: crash" where a call failed, else empty


def prepare(terms: Terms, problem: Problem, attempts: int) -> None:
    """Calls every function once. Raises: InputError; see functions.prepare."""
    for term in terms.own.values():
        functions.prepare(term.function, problem, attempts, terms.limits, batch=term.batch)


def pay(terms: Terms, rows: Rows, builtin: Callable[[], list[list[Grade]]]) -> Paid:
    """Grades every attempt by every term and adds up.

    builtin: grades by the problems' own graders.
    Raises: InputError if a function raises or returns no rewards.
    """
    verdicts = builtin() if terms.needs_builtin() else []
    shape = (len(rows.texts_BA), len(rows.texts_BA[0]) if rows.texts_BA else 0)
    reward_BA, solved_BA = np.zeros(shape), np.zeros(shape, bool)
    reasons: list[list[str]] = []
    failed = [""] * shape[0]
    broken_BA = np.zeros(shape, bool)
    of_terms = {}
    for name, term in terms.of.items():
        found = verdicts if term.function == BUILTIN else _own(term, terms.limits, rows, verdicts)
        if term.function == BUILTIN:
            broken_BA |= np.array(
                [[one.reason in calls.FAILED for one in row] for row in verdicts], bool
            ).reshape(shape)
        value_BA = np.full(shape, np.nan)
        for b, row in enumerate(found):
            if isinstance(row, str):
                failed[b] = failed[b] or f"{name}: {row}"
            else:
                value_BA[b] = [one.reward for one in row]
        reward_BA += term.weight * value_BA
        of_terms[name] = value_BA.astype(np.float32)
        if name == terms.solver:
            solved_BA = value_BA >= terms.solved_at  # NaN is not
            reasons = [
                [row] * shape[1] if isinstance(row, str) else [one.reason for one in row]
                for row in found
            ]
    for b, why in enumerate(failed):
        if why:
            broken_BA[b] = True
            reasons[b] = [why.rpartition(": ")[2]] * shape[1]
    reward_BA = np.where(broken_BA, terms.failed, reward_BA)
    for b, a in np.argwhere(~(np.abs(reward_BA) <= LARGEST)):
        raise InputError(
            f"the rewards of attempt {a + 1} at problem {rows.problems[b].id} times their weights "
            f"add up to {reward_BA[b, a]:g}, and float32 holds {LARGEST:g} at most. Lower the "
            "weights in config.rewards.functions, or what the functions return."
        )
    reward_BA = reward_BA.astype(np.float32)
    return Paid(reward_BA, solved_BA & ~broken_BA, reasons, of_terms, failed)


def _own(
    term: Term, limits: Limits, rows: Rows, verdicts: list[list[Grade]]
) -> list[list[Grade] | str]:
    return functions.grade(term.function, rows, limits, batch=term.batch, verdicts=verdicts)
