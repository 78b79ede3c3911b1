"""The result of a run: every stage's evaluation in one file, and the table printed at the end.

Reads the files of the evaluations (metrics.py says what is in them) and computes nothing.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.problem import InputError

NONE = "no evaluations were run"


def write(
    workdir: str | os.PathLike[str],
    stages: Sequence[str],
    wall_sec: float,
    versions: Mapping[str, str],
    compiles: Mapping[str, int] | None = None,
    tests: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes report/summary.json and returns what it holds.

    Args:
      stages: names in the order of the recipe; `base` is added if it is missing, and comes first.
        A stage without evaluations/STAGE.json is left out: what was not run is not reported.
      wall_sec: wall time of the whole run.
      compiles: programs `compiled`, read `from_cache`, and compiled `late` (compiles.py).
      tests: names of further test sets; their evaluations are in `tests`, by set and stage.
    Raises: InputError if an evaluation cannot be read.
    """
    summary = {
        **evaluations(workdir, stages, tests),
        "wall_sec": wall_sec,
        "versions": dict(versions),
        **({"compiles": dict(compiles)} if compiles else {}),
    }
    jsonfiles.write(Path(workdir) / "report" / "summary.json", summary)
    return summary


def evaluations(
    workdir: str | os.PathLike[str], stages: Sequence[str], tests: Sequence[str] = ()
) -> dict[str, Any]:
    """The evaluations of a run, as `stages` and `tests` of its summary. Raises as `write`."""
    names = ["base", *(name for name in stages if name != "base")]
    folder = Path(workdir) / "evaluations"

    def found(end: str) -> dict[str, Any]:
        paths = {name: folder / f"{name}{end}" for name in names}
        return {name: _read(path) for name, path in paths.items() if path.exists()}

    of_tests = {"tests": {test: found(f".{test}.json") for test in tests}} if tests else {}
    return {"stages": found(".json"), **of_tests}


def table(summary: Mapping[str, Any]) -> str:
    """The stages as rows of plain text: each share with its 95 % interval below it, and n.

    Those of further test sets follow, as STAGE.SET.
    """
    stages = _named(summary)
    if not stages:
        return NONE
    columns = _columns(stages)
    rows = [["stage", *columns.values(), "n"]]
    for name, metrics in stages.items():
        shares, intervals = zip(*(_share(metrics, key) for key in columns), strict=True)
        rows.append([name, *shares, str(metrics["n"])])
        rows.append(["", *intervals, ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        # Names are aligned left, numbers right.
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    note = "shares of all n problems, 95 % intervals below them"
    if "delta" in columns:
        note += "; Δ = Acc@t2 − Acc@t1 = i→c − c→i (i→c: wrong, then right; c→i: right, then wrong)"
    for name, metrics in stages.items():
        if "format_repaired" in metrics:
            form, answer = (
                _with_interval(metrics, f"{key}_repaired") for key in ("format", "answer")
            )
            note += f"\n{name}: i→c = {form} format repaired + {answer} answer repaired"
    if any(metrics.get("sandbox") == "none" for metrics in stages.values()):
        note += "\nsandbox: none (model-written programs ran with all rights of the user)"
    return "\n".join([lines[0], rule, *lines[1:], rule, note])


def markdown(summary: Mapping[str, Any]) -> str:
    """The same rows as a table of Markdown, each interval behind its share."""
    stages = _named(summary)
    if not stages:
        return NONE
    columns = _columns(stages)
    rows = [["stage", "n", *columns.values()], ["---"] * (len(columns) + 2)]
    for name, metrics in stages.items():
        shares = [" ".join(_share(metrics, key)).strip() for key in columns]
        rows.append([name, str(metrics["n"]), *shares])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _named(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The evaluations by stage, those of further test sets as STAGE.SET."""
    stages = dict(summary["stages"])
    for test, of_stage in summary.get("tests", {}).items():
        stages |= {f"{stage}.{test}": metrics for stage, metrics in of_stage.items()}
    return stages


def _share(metrics: Mapping[str, Any], key: str) -> tuple[str, str]:
    """A metric and its interval, as they are printed; "-" and "" where there are none."""
    if key.startswith("reward_") and key not in metrics:  # each reward was 0 or 1, as solved
        key = key.replace("reward_", "accuracy_")
    style = "+.3f" if key.startswith("delta") else ".3f"
    low_high = metrics["interval"].get(key)
    interval = f"[{low_high[0]:{style}}, {low_high[1]:{style}}]" if low_high else ""
    return format(metrics[key], style) if key in metrics else "-", interval


def _with_interval(metrics: Mapping[str, Any], key: str) -> str:
    low, high = metrics["interval"][key]
    return f"{metrics[key]:.3f} [{low:.3f}, {high:.3f}]"


def _columns(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Keys and titles of the metrics that at least one stage has."""
    keys = {key for metrics in stages.values() for key in metrics}
    attempts = sum(key.startswith("accuracy_attempt") for key in keys)
    heads = {f"accuracy_attempt{a}": f"Acc@t{a}" for a in range(1, attempts + 1)}
    heads |= {f"reward_attempt{a}": f"reward@t{a}" for a in range(1, attempts + 1)}
    heads |= {
        "delta": "Δ",
        "delta_last": f"Δ@t{attempts}",
        "incorrect_to_correct": "i→c",
        "correct_to_incorrect": "c→i",
        "changed": "changed",
    }
    return {key: head for key, head in heads.items() if key in keys}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({error}), so the summary cannot be made. "
            "Remove that file and run the same command again to evaluate that stage again."
        ) from error
