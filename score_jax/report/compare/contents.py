"""Work directories -> what the page that compares them shows, as plain JSON values.

Each run is read as for its own page (run_page/contents.py). Runs are compared at *places*: the
evaluations before training and after stages that more than one run has, and the latest of each.
Problems are the same if id and text are; intervals are over the problems that two runs share.
"""

import itertools
import os
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax.buckets import places
from score_jax.evaluation.metrics import mcnemar_p
from score_jax.evaluation.sampled import bootstrap_interval
from score_jax.problem import InputError
from score_jax.report.comparison import finished
from score_jax.report.run_page import contents, transcripts
from score_jax.workdir import settings_check

MOST = 6  # runs: the page has as many colours
LATEST = "latest of each"  # a place

Solved = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]  # attempts by problem


def of(
    workdirs: Sequence[str | os.PathLike[str]],
    transcript_characters: int = contents.TRANSCRIPT_CHARACTERS,
) -> dict[str, Any]:
    """Everything the page shows. The first run is what the others are compared with.

    Raises: InputError if there are not 2 to MOST different folders, or one is not of a run.
    """
    folders = [Path(workdir) for workdir in workdirs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a work directory is named twice. Name each once.")
    if not 2 <= len(folders) <= MOST:
        raise InputError(
            f"{len(folders)} work director{'y is' if len(folders) == 1 else 'ies are'} named, but "
            f"the page compares 2 to {MOST} runs. For more runs, and for seeds, make tables: "
            "python -m score_jax.report.comparison.tables --runs=DIR …"
        )
    share = transcript_characters // len(folders)
    runs = [
        {"letter": letter, "folder": places.shown(str(folder)), **contents.of(folder, share)}
        for letter, folder in zip(string.ascii_uppercase, folders, strict=False)
    ]
    return {
        "name": ", ".join(run["name"] for run in runs),
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "runs": [_shown(run) for run in runs],
        "settings": list(_settings(runs)),
        "places": [_compared(place, folders) for place in _places(runs)],
    }


def _shown(run: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's own page what this one shows of it; settings are compared by themselves."""
    config = run["config"]
    evaluations = run["transcripts"]["evaluations"]
    return {
        **{key: run[key] for key in ("letter", "folder", "name", "alive", "finished", "wall_sec")},
        **{key: run[key] for key in ("stages", "evaluations")},
        "alarms": len(run["alarms"]),
        "model": config["settings"]["model"]["source"],
        "command": config.get("command"),
        "transcripts": {
            "problems": run["transcripts"]["problems"],
            # Training samples are of other problems in each run.
            "evaluations": [one for one in evaluations if "samples" not in one],
        },
    }


def _settings(runs: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """[path, value of each run] where they differ; a stage is as its differences from defaults.

    Device, revision and versions follow, as they can differ too.
    """
    own = [settings_check.flat(run["config"]["settings"]) for run in runs]
    paths = [path for run in runs for path, _, _ in run["differences"]]
    rows = [[path, *(flat.get(path) for flat in own)] for path in dict.fromkeys(paths)]
    versions = [run["config"].get("versions") or {} for run in runs]
    rows += [[f"{name} (version)", *(v.get(name) for v in versions)] for name in _all(versions)]
    for name in ("device", "git_revision"):
        rows.append([name.replace("_", " "), *(run["config"].get(name) for run in runs)])
    return (row for row in rows if any(value != row[1] for value in row[2:]))


def _all(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(itertools.chain(*mappings)))


def _places(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str | None]]]:
    """A place, and the evaluation that each run has there; the latest of each comes first."""
    ends = [[e["name"] for e in run["evaluations"] if not e["within"]] for run in runs]
    latest = [run["evaluations"][-1]["name"] if run["evaluations"] else None for run in runs]
    if sum(name is not None for name in latest) > 1:
        yield LATEST, latest
    for name in dict.fromkeys(itertools.chain(*reversed(ends))):
        here = [name if name in mine else None for mine in ends]
        if sum(one is not None for one in here) > 1 and here != latest:
            yield f"after {name}", here


def _compared(place: tuple[str, list[str | None]], folders: Sequence[Path]) -> dict[str, Any]:
    """The place with each later run's differences from the first run, None where one is missing."""
    name, evaluations = place
    found = [
        _attempts(folder / "transcripts" / f"{evaluation}.jsonl") if evaluation else {}
        for folder, evaluation in zip(folders, evaluations, strict=True)
    ]
    pairs = [_pair(other, found[0]) if other and found[0] else None for other in found[1:]]
    return {"name": name, "evaluations": evaluations, "pairs": pairs}


def _attempts(path: Path) -> Solved:
    return {(row["id"], row["problem"]): row["attempts"] for row in transcripts.rows_of(path)}


def _pair(other: Solved, first: Solved) -> dict[str, Any]:
    """Differences other − first over the problems of both: mean, 95 % interval, McNemar's p.

    {"n", "of": problems of each, "attempt1", …, "delta"}. A value is [mean, low, high, p]; p is
    None for delta, which is no share.
    """
    both = [problem for problem in other if problem in first]
    found: dict[str, Any] = {"n": len(both), "of": [len(first), len(other)]}
    attempts = min((len(rows[p]) for p in both for rows in (first, other)), default=0)
    wanted: dict[str, int | None] = {f"attempt{a + 1}": a for a in range(attempts)}
    if attempts > 1:
        wanted["delta"] = None
    for name, attempt in wanted.items():
        value_N = finished.paired(other, first, attempt)
        p = mcnemar_p(int((value_N > 0).sum()), int((value_N < 0).sum()))
        found[name] = [
            float(value_N.mean()),
            *bootstrap_interval(value_N),
            None if attempt is None else p,
        ]
    return found
