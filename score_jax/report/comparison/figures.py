"""Figures that compare runs: inference-time scaling, edit ratios, sensitivity to a setting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from score_jax.report.run_page.plots import COLOURS, GREY, MARKERS, STYLE

_WAYS = {"parallel": "2K in parallel", "sequential": "K + K", "sequential_all": "K + K, all 2K"}


def scaling(studies: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Accuracy by budget, in solutions and in generated tokens; means over runs and their range.

    studies: scaling/*.json of runs of one kind; a single study is drawn with its own intervals.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for (way, label), colour, marker in zip(_WAYS.items(), COLOURS, MARKERS, strict=True):
            rows = [[row[way] for row in study["budgets"]] for study in studies]
            accuracy = np.array([[row["accuracy"] for row in run] for run in rows])
            tokens = np.mean([[row["tokens"] for row in run] for run in rows], axis=0)
            low, high = accuracy.min(axis=0), accuracy.max(axis=0)
            if len(studies) == 1:
                low, high = np.array([row["interval"] for row in rows[0]]).T
            for axes, x in (
                (left, [row["solutions"] for row in studies[0]["budgets"]]),
                (right, tokens),
            ):
                axes.plot(x, accuracy.mean(axis=0), color=colour, marker=marker, label=label)
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for axes, title in ((left, "solutions per problem"), (right, "generated tokens")):
            axes.set_xscale("log", base=2)
            axes.set_xlabel(title)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        left.set_title("Right by majority vote")
        left.legend(loc="best")
        figure.savefig(path)
    return path


def edit_ratios(histograms: Mapping[str, Sequence[Sequence[int]]], path: Path) -> Path:
    """Histograms of how much the second attempt rewrites: {name: one or more runs}."""
    with matplotlib.rc_context(STYLE):
        figure, grid = _grid(len(histograms), 1.9, 0.4, sharex=True)
        for axes, (name, runs) in zip(grid, histograms.items(), strict=False):
            shares = np.mean([np.array(run) / sum(run) for run in runs], axis=0)
            edges = np.linspace(0.0, 1.0, len(shares) + 1)
            axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=COLOURS[0])
            axes.set_title(name)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.supxlabel("characters deleted and inserted, over the sum of lengths", fontsize=8)
        figure.savefig(path)
    return path


def sensitivity(settings: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], path: Path):
    """Accuracy of both attempts by setting: {setting: {value: [(attempt 1, 2) of each run]}}."""
    with matplotlib.rc_context(STYLE):
        figure, grid = _grid(len(settings), 2.3, 0.3)
        for axes, (name, values) in zip(grid, settings.items(), strict=False):
            _values(axes, values)
            axes.set_title(name)
        grid[0].legend(loc="best")
        figure.savefig(path)
    return path


def _grid(count: int, row: float, rest: float, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `count` plots, three in a row; `row` inches high each, and `rest` for all."""
    rows = -(-count // 3)
    figure = Figure(figsize=(9, row * rows + rest), layout="constrained")
    grid = list(figure.subplots(rows, 3, sharex=sharex, sharey=True, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _values(axes: Axes, values: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """One x position per value, in rising order; a mark per run, a line through the means."""
    order = sorted(values, key=float)
    for a, (label, colour) in enumerate((("attempt 1", COLOURS[0]), ("attempt 2", COLOURS[1]))):
        means = [np.mean([run[a] for run in values[value]]) for value in order]
        axes.plot(range(len(order)), means, color=colour, label=label)
        for x, value in enumerate(order):
            y = [run[a] for run in values[value]]
            axes.plot([x] * len(y), y, MARKERS[a], color=colour, markersize=4)
    axes.set_xticks(range(len(order)), order)
    axes.set_ylim(-0.02, 1.02)
    axes.axhline(0.0, color=GREY, linewidth=0.5)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
