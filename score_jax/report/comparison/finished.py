"""Finished runs, read from their work directories; tables and RESULTS.md are made from them."""

import dataclasses
import glob
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_jax.buckets.client import is_url
from score_jax.problem import InputError
from score_jax.workdir.runlog import is_solved


@dataclasses.dataclass(frozen=True)
class Finished:
    """One run that has its report/summary.json."""

    folder: Path
    name: str  # config.name, or the recipe's stages joined
    seed: int
    recipe: tuple[str, ...]
    stages: Mapping[str, Mapping[str, Any]]  # metrics by stage, `base` first
    wall_sec: float
    config: Mapping[str, Any]  # all of config.json

    @property
    def last(self) -> Mapping[str, Any]:
        """Metrics after the last stage."""
        return self.stages[self.recipe[-1]]

    @property
    def revision(self) -> str:
        """The commit that it ran with, shortened, with `-dirty` if files had changes."""
        commit, _, dirty = str(self.config.get("git_revision")).partition("-")
        return commit[:12] + ("-dirty" if dirty else "")

    def attempts(self) -> dict[str, list[dict[str, Any]]]:
        """{problem id: its attempts, as in transcripts} after the last stage."""
        path = self.folder / "transcripts" / f"{self.recipe[-1]}.jsonl"
        with open(path, encoding="utf-8") as lines:
            return {row["id"]: row["attempts"] for row in map(json.loads, lines)}

    def tokens(self) -> float:
        """Mean number of generated tokens per problem, all attempts, after the last stage."""
        written = [sum(a["tokens"] for a in attempts) for attempts in self.attempts().values()]
        return sum(written) / len(written)

    def scaling(self) -> Mapping[str, Any] | None:
        """The inference-time scaling study of the last stage, None if there is none."""
        path = self.folder / "scaling" / f"{self.recipe[-1]}.json"
        return json.loads(path.read_text()) if path.exists() else None


def read(patterns: Sequence[str | Path]) -> list[Finished]:
    """The finished runs in work directories, in folders of work directories, or in glob patterns.

    Runs that are not finished are left out; a line on standard error names them.
    Raises: InputError if there is no finished run, or a file of one cannot be read.
    """
    folders = []
    for pattern in map(str, patterns):
        if is_url(pattern):
            raise InputError(
                f"{pattern} is in a bucket, and RESULTS.md is made of local runs. Copy what they "
                f"show: gcloud storage rsync -r -x '.*checkpoints/.*' {pattern} FOLDER"
            )
        for found in sorted(map(Path, glob.glob(pattern))):
            own = (found / "config.json").exists()
            folders += [found] if own else sorted(p.parent for p in found.glob("*/config.json"))
    runs = [_read(folder) for folder in folders if _is_finished(folder)]
    if left_out := [str(folder) for folder in folders if not _is_finished(folder)]:
        print(
            f"score_jax: not finished (no report/summary.json), so left out: {', '.join(left_out)}",
            file=sys.stderr,
        )
    if not runs:
        raise InputError(
            f"no finished run in {', '.join(map(str, patterns))}: a finished run has config.json "
            "and report/summary.json. Name work directories, or a folder of them."
        )
    return runs


def by_name(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Runs of each name, ordered by seed."""
    found: dict[str, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        found.setdefault(run.name, []).append(run)
    return found


def bases(runs: Sequence[Finished]) -> list[Mapping[str, Any]]:
    """The base model's metrics, once per seed: from a run named `base`, or else the first run."""
    found: dict[int, Mapping[str, Any]] = {}
    for run in sorted(runs, key=lambda run: run.name != "base"):
        found.setdefault(run.seed, run.stages["base"])
    return [found[seed] for seed in sorted(found)]


def difference(ours: Finished, theirs: Finished, attempt: int | None) -> np.ndarray:
    """Our 1 for solved minus theirs after the last stage, one value per problem.

    attempt: which attempt, counted from 0; None: the second minus the first.
    """
    a, b = ours.attempts(), theirs.attempts()
    if a.keys() != b.keys():
        raise InputError(
            f"{ours.folder} and {theirs.folder} were evaluated on different problems, so they "
            "cannot be compared problem by problem. Evaluate both on the same problems."
        )
    return paired(a, b, attempt)


def paired(
    ours: Mapping[Any, Sequence[Mapping[str, Any]]],
    theirs: Mapping[Any, Sequence[Mapping[str, Any]]],
    attempt: int | None,
) -> np.ndarray:
    """As difference, of attempts by problem; over the problems that both have."""

    def value(attempts: Sequence[Mapping[str, Any]]) -> int:
        solved = list(map(is_solved, attempts))
        return solved[1] - solved[0] if attempt is None else int(solved[attempt])

    return np.array([value(ours[p]) - value(theirs[p]) for p in ours if p in theirs], int)


def _is_finished(folder: Path) -> bool:
    return (folder / "report" / "summary.json").exists()  # written when all stages are done


def _read(folder: Path) -> Finished:
    try:
        config = json.loads((folder / "config.json").read_text())
        summary = json.loads((folder / "report" / "summary.json").read_text())
        settings = config["settings"]
        return Finished(
            folder=folder,
            name=settings.get("name") or " → ".join(settings["recipe"]),
            seed=settings.get("seed", 0),
            recipe=tuple(settings["recipe"]),
            stages=summary["stages"],
            wall_sec=summary.get("wall_sec", 0.0),
            config=config,
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} cannot be read as a finished run ({type(error).__name__}: {error}): "
            "config.json and report/summary.json are needed. Leave it out, or run it again."
        ) from error
