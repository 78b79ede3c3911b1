"""Work directories of several seeds -> one Markdown table, a row per stage.

    python -m score_jax.report.tables runs/seeds/*

Rows of runs that share a recipe are pooled: mean ± standard deviation over seeds, and the range.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax.problem import InputError

COLUMNS = {
    "accuracy_attempt1": "Acc@t1",
    "accuracy_attempt2": "Acc@t2",
    "delta": "Δ",
    "incorrect_to_correct": "i→c",
    "correct_to_incorrect": "c→i",
    "changed": "changed",
}


def pooled(folders: Sequence[str | Path]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(recipe, stage) -> that stage's metrics, one per work directory; recipes as joined names.

    Raises: InputError for a folder without config.json and report/summary.json.
    """
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for folder in map(Path, folders):
        try:
            settings = json.loads((folder / "config.json").read_text())["settings"]
            stages = json.loads((folder / "report" / "summary.json").read_text())["stages"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} is not a finished run ({error}): its config.json and "
                "report/summary.json are needed. Run it to its end, or leave it out."
            ) from error
        recipe = " → ".join(settings["recipe"])
        for stage, metrics in stages.items():
            rows.setdefault((recipe, stage), []).append(metrics)
    return rows


def markdown(rows: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> str:
    """The table; shares in per cent, mean ± standard deviation (n - 1) over runs."""
    lines = [
        "| recipe | after stage | runs | problems | "
        + " | ".join(COLUMNS.values())
        + " | Δ range |",
        "|---" * (5 + len(COLUMNS)) + "|",
    ]
    for (recipe, stage), runs in rows.items():
        cells = [_cell([run[key] for run in runs if key in run]) for key in COLUMNS]
        deltas = [100 * run["delta"] for run in runs if "delta" in run]
        span = f"{min(deltas):+.1f} … {max(deltas):+.1f}" if deltas else "–"
        n = ", ".join(sorted({str(run["n"]) for run in runs}))
        lines.append(f"| {recipe} | {stage} | {len(runs)} | {n} | {' | '.join(cells)} | {span} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = 100 * statistics.fmean(values)
    spread = 100 * statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{mean:.1f} ± {spread:.1f}"


if __name__ == "__main__":
    try:
        print(markdown(pooled(sys.argv[1:])))
    except InputError as error:
        sys.exit(f"score_jax: {error}")
