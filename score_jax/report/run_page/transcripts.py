"""The transcripts of a run page: those of evaluations, and training samples."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax.problem import InputError
from score_jax.workdir import runlog

LATEST = "latest"  # the evaluation of --mode=evaluate
STEPS = 30  # with training samples, of a stage


def of(
    folder: Path,
    evaluations: Sequence[Mapping[str, Any]],
    plan: Sequence[Mapping[str, Any]],
    characters: int,
) -> dict[str, Any]:
    """The problems, each once, and the first rows of the transcripts of each evaluation shown.

    A row is [problem's index, edit ratio, attempt …]. An attempt is [text, reward, reason, tokens,
    truncated, solved, lenient, shading, advantage]; shading is [ends, logp, base_logp] or None
    (shading.py). Only training samples have an advantage; they have a list `samples` too: the
    number of each row within its group, the samples of one problem.
    """
    problems: list[list[Any]] = []
    index: dict[str, int] = {}
    shown = []

    def number(row: Mapping[str, Any]) -> int:
        if row["id"] not in index:
            index[row["id"]] = len(problems)
            problems.append([row["id"], row["problem"], row["gold"], row.get("tags") or {}])
        return index[row["id"]]

    wanted = [e for e in evaluations[:-1] if not e["within"]] + list(evaluations[-1:])
    has_latest = (folder / "transcripts" / f"{LATEST}.jsonl").exists()
    if has_latest and all(e["name"] != LATEST for e in evaluations):
        wanted.append({"name": LATEST, "n": 0})
    paths = [folder / "transcripts" / f"{e['name']}.jsonl" for e in wanted]
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    for evaluation, path, share in zip(wanted, paths, _shares(sizes, characters), strict=True):
        rows = [
            [number(row), row.get("edit_ratio"), *map(_attempt, row["attempts"])]
            for row in rows_of(path, share)
        ]
        shown.append({"name": evaluation["name"], "n": evaluation["n"] or len(rows), "rows": rows})
    for place, sampled in _training(folder, plan):
        rows = [[number(row), None, *map(_attempt, row["attempts"])] for row in sampled]
        samples = [row["sample"] for row in sampled]
        shown.append({"name": place, "n": len(rows), "rows": rows, "samples": samples})
    return {"problems": problems, "evaluations": shown}


def _attempt(attempt: Mapping[str, Any]) -> list[Any]:
    values = [attempt[key] for key in ("text", "reward", "reason", "tokens", "truncated")]
    solved = runlog.is_solved(attempt)
    values += [solved, attempt.get("lenient", solved)]
    shading, advantage = attempt.get("shading"), attempt.get("advantage")
    if shading or advantage is not None:
        values.append(
            [shading["ends"], shading["logp"], shading.get("base_logp")] if shading else None
        )
        values.append(advantage)
    return values


def _training(
    folder: Path, plan: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The training samples by step, at most STEPS of each stage and its latest among them."""
    if not (folder / runlog.SAMPLES).exists():
        return
    by_step: dict[str, dict[int, list[dict[str, Any]]]] = {stage["name"]: {} for stage in plan}
    for row in runlog.read_rows(folder / runlog.SAMPLES):
        if row["stage"] in by_step:
            by_step[row["stage"]].setdefault(row["step"], []).append(row)
    for stage, steps in by_step.items():
        numbers = sorted(steps)[:: -(-len(steps) // STEPS) or 1]
        for step in sorted({*numbers, *list(steps)[-1:]}):
            yield f"{stage}, step {step}", steps[step]


def _shares(sizes: Sequence[int], budget: int) -> list[int]:
    """How a budget is divided among files: small ones get all they need, the others equal shares.

    So all evaluations show the same problems, as far as possible.
    """
    shares = [0] * len(sizes)
    for done, i in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[i] = min(sizes[i], budget // (len(sizes) - done))
        budget -= shares[i]
    return shares


def rows_of(path: Path, characters: float = math.inf) -> Iterator[dict[str, Any]]:
    """The first rows of a file of transcripts, up to so many characters; none without a file.

    Raises: InputError for a line that is not JSON.
    """
    if not path.exists():
        return
    with open(path, encoding="utf-8") as file:
        for line in file:
            characters -= len(line)
            if characters < 0:
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{path} has a line that is not JSON ({error}). Remove this file and "
                    f"evaluations/{path.stem}.json, and run the same command again."
                ) from error
