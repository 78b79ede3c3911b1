"""Training samples of a step: lines of samples.jsonl, for the run page.

Whole groups (all samples of a problem) are taken, as an advantage compares a sample with the others
of its group. They are the first rows of this process; the lead writes its own.
"""

from typing import Any

import jax
import numpy as np

from score_jax.grading import Grades, OwnRows
from score_jax.runtime import hosts

ROWS = 16  # of a step, or one group if that has more


def are_taken(number: int, every: int) -> bool:
    """Whether step `number` leaves samples: the first one of a stage, and every so many."""
    return bool(every) and (number == 1 or number % every == 0)


def taken(own: OwnRows, grades: Grades, samples: int) -> list[tuple[int, dict[str, Any]]]:
    """[(row of the batch, its line without advantages), …]; samples: rows of a problem."""
    rows = []
    for n, row in enumerate(own.row_N[: max(1, ROWS // samples) * samples].tolist()):
        problem = own.problems[n]
        attempts = [
            {
                "text": text,
                "reward": float(grades.reward_NA[n, a]),
                "solved": bool(grades.solved_NA[n, a]),
                "reason": grades.reasons[n][a],
                "tokens": int(np.sum(own.rows.attempt[n] == a + 1)),
                "truncated": bool(own.rows.truncated[n, a]),
            }
            for a, text in enumerate(own.texts[n])
        ]
        said = {"id": problem.id, "problem": problem.prompt, "gold": problem.gold}
        tags = dict(problem.tags)
        rows.append((row, {"sample": row % samples, **said, "tags": tags, "attempts": attempts}))
    return rows


def with_advantages(
    rows: list[tuple[int, dict[str, Any]]], advantage_BA: jax.Array
) -> list[dict[str, Any]]:
    """The lines of `taken` with the advantage of each attempt; null if another process has it."""
    advantage_NA, row_N = hosts.own_rows(advantage_BA)
    known = dict(zip(row_N.tolist(), advantage_NA.tolist(), strict=True))
    for row, line in rows:
        for a, attempt in enumerate(line["attempts"]):
            attempt["advantage"] = known[row][a] if row in known else None
    return [line for _, line in rows]
