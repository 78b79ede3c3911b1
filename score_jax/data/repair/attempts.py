"""Like MBPP-R: wrong programs to repair, given as first attempts; only the second is sampled.

The SCoRe paper evaluates repair on MBPP-R, wrong MBPP programs of PaLM 2 (Ni et al.), which is not
public. This makes stand-ins. Never compare results on them with the paper's column.

    python -m score_jax.data.repair.attempts mutated MBPP_FOLDER --split=test --seed=0 --out=FILE
    python -m score_jax.data.repair.attempts written TRANSCRIPT --model=NAME --seed=0 --out=FILE

`written` takes the wrong first attempts of a model from the transcript of an evaluation on MBPP
(DIR/transcripts/base.jsonl); --model and --seed record the model and seed that wrote it. `mutated`
needs no model: it makes one small error in each reference program (mutate.py). The field "made_by"
of each line says which of the two made it. A mutant is kept if its tests ran and failed. Programs
that time out are left out, because they would use their whole time limit at every grading.

The problem set "mbpp_repair" reads such a file. The row that the policy continues looks as if the
policy had written the wrong program itself: prompt, program, end token, instruction. So the attempt
it samples, called attempt 1, is the paper's second attempt.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from score_jax import jsonfiles
from score_jax.console import command
from score_jax.data.files import published
from score_jax.data.repair import mutate
from score_jax.data.sets import jsonl, mbpp
from score_jax.problem import Grade, InputError, Problem, expanded

NAME = "mbpp_repair"
TRIES = 8  # mutants run per program
# Reasons that do not show a wrong program, or that show there is none to repair.
_UNUSED = {"timeout", "memory", "crash", "truncated", "refused", "too_long", "no_program"}

# Problems and one program for each -> its grades.
Grader = Callable[[Sequence[Problem], Sequence[str]], Sequence[Grade]]


def problems(path: str) -> list[Problem]:
    """The problems of a repair file."""
    if not path or expanded(path).is_dir():
        raise InputError(
            "problem set 'mbpp_repair' needs a .jsonl file of wrong programs as its path. "
            "`python -m score_jax.data.repair.attempts` writes one; the paper's is not public."
        )
    file = expanded(path)
    found, names = [], []
    for number, row in jsonl.rows(file):
        prompt, wrong, made_by = (
            jsonl.text_field(row, name, file, number)
            for name in ("problem", "first_attempt", "made_by")
        )
        gold = {
            "tests": published.strings(row, "tests", file, number),
            "setup": published.string(row, "setup", file, number),
            "prelude": published.string(row, "prelude", file, number),
        }
        if not gold["tests"]:
            raise InputError(f"{file}, line {number}: has no tests, so no repair can be graded.")
        names.append((number, jsonl.text_field(row, "id", file, number)))
        found.append(
            Problem(
                id=names[-1][1],
                prompt=prompt,
                gold=json.dumps(gold),
                grader="program",
                tags={"made_by": made_by},
                first_attempt=wrong,
            )
        )
    jsonl.unique(names, file)
    return found


def mutated(tasks: Iterable[dict[str, Any]], seed: int, grade: Grader) -> Iterator[dict[str, Any]]:
    """Rows of a repair file: each task's reference program with one error that fails its tests.

    Args:
      tasks: examples of mbpp.py. The error depends only on the seed and the task's id.
    """
    chances = {}
    for row in tasks:
        rng = np.random.default_rng([seed, row["task_id"]])
        chances[row["task_id"]] = (mbpp.problem(row), mutate.mutants(row["code"], rng))
    for _ in range(TRIES):
        tried = [
            (task, problem, program)
            for task, (problem, programs) in chances.items()
            if (program := next(programs, None)) is not None
        ]
        if not tried:
            return
        grades = grade([problem for _, problem, _ in tried], [program for *_, program in tried])
        for (task, problem, program), found in zip(tried, grades, strict=True):
            if not found.reward and found.reason not in _UNUSED:
                del chances[task]
                yield _row(problem, program, "mutation", seed, found.reason)


def written(file: pathlib.Path, model: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of a repair file: the wrong first attempts in an evaluation's transcript."""
    for number, row in jsonl.rows(file):
        attempts = row.get("attempts")
        if not isinstance(attempts, list) or not attempts or "reward" not in attempts[0]:
            raise InputError(
                f"{file}, line {number}: has no graded attempts. Name the transcript of an "
                "evaluation on MBPP, DIR/transcripts/STAGE.jsonl."
            )
        first = attempts[0]
        right = first.get("solved", first["reward"])  # older transcripts have the reward alone
        if right or first["reason"] in _UNUSED or not first["text"].strip():
            continue
        gold = jsonl.text_field(row, "gold", file, number)
        if not gold.startswith("{"):
            raise InputError(
                f"{file}, line {number}: the right answer is {gold[:40]!r}, not a list of tests, "
                "and only programs can be repaired. Name the transcript of an evaluation on MBPP."
            )
        names = {name: jsonl.text_field(row, name, file, number) for name in ("id", "problem")}
        problem = Problem(names["id"], names["problem"], gold, "program")
        yield _row(problem, first["text"], f"model:{model}", seed, first["reason"])


def _row(problem: Problem, wrong: str, made_by: str, seed: int, reason: str) -> dict[str, Any]:
    return {
        "id": f"{NAME}/{problem.id.rpartition('/')[2]}",
        "problem": problem.prompt,
        "first_attempt": wrong,
        "made_by": made_by,
        "seed": seed,
        "reason": reason,  # the grader's, for the first attempt
        **json.loads(problem.gold),
    }


def _run_tests(problems: Sequence[Problem], programs: Sequence[str]) -> list[Grade]:
    """Grades as training does."""
    from score_jax.rewards import grader

    reward_BA, _, reasons = grader.grade(problems, [[program] for program in programs])
    return [Grade(float(r[0]), why[0]) for r, why in zip(reward_BA, reasons, strict=True)]


def main(argv: Sequence[str]) -> None:
    """The command line of the file's head."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.data.repair.attempts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("mutated", "written"))
    parser.add_argument("source", help="MBPP's folder, or the transcript")
    parser.add_argument("--split", default="test", help="split of MBPP; for mutated")
    parser.add_argument("--model", default="", help="model that wrote the transcript; for written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max_chars", type=int, default=2000, help="most characters of task and program together"
    )
    parser.add_argument("--out", required=True)
    given = parser.parse_args(argv)
    if given.kind == "mutated":
        file = published.find(given.source, mbpp.FILE)
        rows = list(mutated(mbpp.examples(file, given.split), given.seed, _run_tests))
    elif not given.model:
        raise InputError(
            "--model=NAME is missing. Name the model that wrote the programs; the output "
            "file records it."
        )
    else:
        rows = list(written(pathlib.Path(given.source), given.model, given.seed))
    # A few tasks have tests with thousands of numbers; they would make every row long.
    kept = [r for r in rows if len(r["problem"]) + len(r["first_attempt"]) <= given.max_chars]
    if not kept:
        raise InputError(
            f"{given.source}: none of {len(rows)} wrong programs has at most --max_chars="
            f"{given.max_chars} characters with its task, so the set is empty. Raise it."
        )
    jsonfiles.write_lines(given.out, sorted(kept, key=lambda row: row["id"]))
    print(
        f"{given.out}: {len(kept)} wrong programs, made by {kept[0]['made_by']}; "
        f"{len(rows) - len(kept)} longer than {given.max_chars} characters left out."
    )


if __name__ == "__main__":
    command.run(main)
