"""Tables over runs, seeds pooled: the layouts of the paper's Tables 2 and 4, and one of all stages.

    python -m score_jax.report.comparison.tables --runs=DIR [--table=2|4|stages] [--format=csv]

Cells are means in per cent with a 95 % interval: over seeds (Student's t) if there are two runs or
more, else that of the single run over its problems. A row without runs is left out.
"""

import argparse
import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from score_jax.console import command
from score_jax.report.comparison import finished
from score_jax.report.comparison.finished import Finished
from score_jax.workdir import spool

Metrics = Mapping[str, Any]

COLUMNS = {
    "accuracy_attempt1": "Acc@t1",
    "accuracy_attempt2": "Acc@t2",
    "accuracy_attempt3": "Acc@t3",
    "delta": "Δ",
    "incorrect_to_correct": "i→c",
    "correct_to_incorrect": "c→i",
    "changed": "changed",
}
DETAILS = {  # in the table of all stages, which has no layout of the paper
    "format_repaired": "i→c, format",
    "answer_repaired": "i→c, answer",
    "lenient_attempt1": "Acc@t1, lenient",
    "lenient_attempt2": "Acc@t2, lenient",
}
# Name of a run (config.name) -> label of its row, as in the paper.
TABLE_2 = {
    "base": "Base model",
    "self_refine": "Self-Refine",
    "star": "STaR, D",
    "star_plus": "STaR, D+",
    "pair_sft": "Pair-SFT, D",
    "pair_sft_plus": "Pair-SFT, D+",
    "single_turn_rl": "Single-turn RL",
    "multi_turn_rl": "Multi-turn RL",
    "score": "SCoRe",
}
TABLE_4 = {
    "score": "SCoRe",
    "single_turn_rl": "w/o multi-turn training",
    "no_stage1": "w/o Stage I",
    "no_shaping": "w/o reward shaping",
    "star_stage2": "w/ STaR instead of REINFORCE in Stage II",
    "offline_only": "w/o on-policy first attempts in Stage II",
}
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom. For more, the last one is used:
# intervals are then a little too wide, never too narrow.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


def layout(runs: Sequence[Finished], rows: Mapping[str, str]) -> dict[str, list[Metrics]]:
    """Label -> metrics of the runs, after their last stage; `base` is the base model, by seed."""
    named = finished.by_name(runs)
    found = {label: [run.last for run in named.get(name, ())] for name, label in rows.items()}
    if "base" in rows:
        found[rows["base"]] = finished.bases(runs)
    return {label: metrics for label, metrics in found.items() if metrics}


def stages(runs: Sequence[Finished]) -> dict[str, list[Metrics]]:
    """A row for every stage of every kind of run."""
    found: dict[str, list[Metrics]] = {}
    for name, mine in finished.by_name(runs).items():
        for run in mine:
            for stage, metrics in run.stages.items():
                found.setdefault(f"{name}, after {stage}", []).append(metrics)
    return found


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval over runs; for a single run both ends are its value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    freedom = len(values) - 1
    t = _T[min(freedom, len(_T)) - 1]
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def header(rows: Mapping[str, Sequence[Metrics]], details: bool = False) -> dict[str, str]:
    """Keys and titles of the columns that at least one row has."""
    keys = {key for runs in rows.values() for metrics in runs for key in metrics}
    columns = COLUMNS | DETAILS if details else COLUMNS
    return {key: head for key, head in columns.items() if key in keys}


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    first, *others = (f"| {' | '.join(map(str, row))} |" for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def markdown(
    rows: Mapping[str, Sequence[Metrics]], *, first: str = "approach", details: bool = False
) -> str:
    """The table; its last column has Δ of every run, because a mean can hide a single run."""
    columns = header(rows, details)
    lines = []
    for label, runs in rows.items():
        cells = [_cell(key, [run for run in runs if key in run]) for key in columns]
        deltas = " ".join(f"{100 * run['delta']:+.1f}" for run in runs if "delta" in run) or "–"
        n = ", ".join(sorted({str(run["n"]) for run in runs}))
        lines.append((label, len(runs), n, *cells, deltas))
    return grid((first, "runs", "n", *columns.values(), "Δ of each run"), lines)


def as_csv(
    rows: Mapping[str, Sequence[Metrics]], *, first: str = "approach", details: bool = False
) -> str:
    """The table as CSV, in shares instead of per cent: for every column its mean, low and high."""
    columns = header(rows, details)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    bounds = [f"{key}{end}" for key in columns for end in ("", "_low", "_high")]
    writer.writerow([first, "runs", "n", *bounds])
    for label, runs in rows.items():
        cells: list[str] = []
        for key in columns:
            having = [run for run in runs if key in run]
            cells += [f"{value:.6f}" for value in _numbers(key, having)] if having else [""] * 3
        writer.writerow([label, len(runs), runs[0]["n"], *cells])
    return out.getvalue()


def _numbers(key: str, runs: Sequence[Metrics]) -> tuple[float, float, float]:
    if len(runs) == 1 and key in runs[0].get("interval", {}):
        return (runs[0][key], *runs[0]["interval"][key])
    return mean_interval([run[key] for run in runs])


def _cell(key: str, runs: Sequence[Metrics]) -> str:
    if not runs:
        return "–"
    style = "+.1f" if key == "delta" else ".1f"
    least = -1.0 if key == "delta" else 0.0  # an interval of Student's t can leave [0, 1]
    mean, *bounds = _numbers(key, runs)
    low, high = (format(100 * min(max(value, least), 1.0), style) for value in bounds)
    return f"{100 * mean:{style}} [{low}, {high}]"


TABLES = {"2": TABLE_2, "4": TABLE_4}


def main(arguments: Sequence[str]) -> None:
    """Prints the requested tables."""
    parser = argparse.ArgumentParser(description="Tables over work directories, seeds pooled.")
    parser.add_argument(
        "--runs", action="append", required=True, help="work directories, or a folder of them"
    )
    parser.add_argument("--table", choices=(*TABLES, "stages"), action="append")
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")
    given = parser.parse_args(arguments)
    show = markdown if given.format == "markdown" else as_csv
    with spool.all_opened(given.runs) as folders:
        runs = finished.read(folders)
        for name in given.table or (*TABLES, "stages"):
            rows = stages(runs) if name == "stages" else layout(runs, TABLES[name])
            if rows:
                print(show(rows, details=name == "stages"), end="\n\n")


if __name__ == "__main__":
    command.run(main)
