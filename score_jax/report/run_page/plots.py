"""Plots as PNG, for papers and where no page can be opened: report/{accuracy,policy}.png.

They show the same numbers as the run page (contents.py) and are drawn at the end of a run.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would choose a window or a notebook
from matplotlib.ticker import PercentFormatter

from score_jax.report.run_page import contents

# Distinguishable with colour blindness, and in grey.
COLOURS = ("#0067a5", "#bf4a00", "#7a3e9d")
MARKERS = ("o", "s", "^")
GREY = "#4d545b"
STYLE: Any = {
    "axes.edgecolor": "#8b9198",
    "axes.grid": True,
    "axes.labelcolor": "#1d2125",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titlepad": 16,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": "#e4e6e8",
    "legend.edgecolor": "none",
    "savefig.dpi": 160,
    "xtick.color": "#565d65",
    "ytick.color": "#565d65",
}
_POLICY = {
    "kl": "KL to the base model, nats per attempt",
    "length": "Length, tokens",
    "truncated": "Truncated attempts",
    "entropy": "Entropy, nats per token",
}
_SHARES = ("truncated",)


def write(workdir: str | os.PathLike[str]) -> list[Path]:
    """Writes the plots for which the run's files have numbers, and returns their paths.

    Raises: InputError as contents.of does.
    """
    data = contents.of(workdir, transcript_characters=0)
    folder = Path(workdir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    sampled = [s for s in data["stages"] if s["objective"] == "rl" and s["step"]]
    written = []
    with matplotlib.rc_context(STYLE):
        if data["evaluations"]:
            written.append(_accuracy(data["evaluations"], sampled, folder / "accuracy.png"))
        if sampled:
            written.append(_policy(sampled, folder / "policy.png"))
    return written


def _accuracy(
    evaluations: Sequence[Mapping[str, Any]], sampled: Sequence[Mapping[str, Any]], path: Path
) -> Path:
    """Shares of right answers, and Δ: marks for held-out problems, thin lines for training ones."""
    from_step = sampled[0]["before"] if sampled else 0
    shown = [e for e in evaluations if e["step"] >= from_step]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for a in _attempts(shown, "accuracy_attempt"):
        colour, marker = COLOURS[(a - 1) % 3], MARKERS[(a - 1) % 3]
        _marks(left, shown, f"accuracy_attempt{a}", colour, marker, f"attempt {a}")
        for stage in sampled:
            _curve(left, stage, f"solved/attempt{a}", colour, alpha=0.35)
    _marks(right, shown, "delta", GREY, "o", "")
    right.axhline(0.0, color="#8b9198", linewidth=0.8)
    left.set(title="Right answers", ylim=(-0.02, 1.02))
    right.set(title="Δ, attempt 2 − attempt 1, in points")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    left.legend(loc="best")
    for axes in (left, right):
        _stages(axes, sampled)
    note = f"Marks: {shown[-1]['n']:,} held-out problems, greedy, 95 % intervals."
    if sampled:
        note += " Thin lines: training samples."
    figure.supxlabel(note, fontsize=8, color="#565d65", x=0.01, ha="left")
    figure.savefig(path)
    return path


def _policy(sampled: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Metrics of the policy during training."""
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    grid = figure.subplots(2, 2)
    for axes, (name, title) in zip(grid.flat, _POLICY.items(), strict=True):
        metrics = [stage["metrics"] for stage in sampled]
        for a in _attempts(metrics, f"{name}/attempt"):
            for i, stage in enumerate(sampled):
                label = f"attempt {a}" if i == 0 else ""
                _curve(axes, stage, f"{name}/attempt{a}", COLOURS[(a - 1) % 3], label=label)
        axes.set_title(title)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if name in _SHARES:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _stages(axes, sampled)
    grid[0, 0].legend(loc="best")
    figure.savefig(path)
    return path


def _attempts(tables: Sequence[Mapping[str, Any]], stem: str) -> list[int]:
    """1, …, A: the attempts that at least one of the tables has."""
    attempts: list[int] = []
    while any(f"{stem}{len(attempts) + 1}" in table for table in tables):
        attempts.append(len(attempts) + 1)
    return attempts


def _marks(axes: Axes, evaluations, key: str, colour: str, marker: str, label: str) -> None:
    having = [e for e in evaluations if key in e]
    if having:
        y = [e[key] for e in having]
        low, high = zip(*(e["interval"][key] for e in having), strict=True)
        axes.errorbar(
            [e["step"] for e in having],
            y,
            yerr=[
                [max(0.0, v - bound) for v, bound in zip(y, low, strict=True)],
                [max(0.0, bound - v) for v, bound in zip(y, high, strict=True)],
            ],
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.2,
            linestyle=":",
            label=label or None,
        )


def _curve(axes: Axes, stage, key: str, colour: str, label: str = "", alpha: float = 1.0) -> None:
    if key in stage["metrics"]:
        steps = [stage["before"] + step for step in stage["step"]]
        values = [float("nan") if v is None else v for v in stage["metrics"][key]]
        axes.plot(steps, values, color=colour, alpha=alpha, linewidth=0.9, label=label or None)


def _stages(axes: Axes, sampled: Sequence[Mapping[str, Any]]) -> None:
    """A dotted line where a stage begins, with its name; the x axis counts the run's steps."""
    for stage in sampled:
        axes.axvline(stage["before"], color="#8b9198", linewidth=0.8, linestyle=":")
        axes.annotate(
            stage["name"],
            (stage["before"], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            color="#565d65",
            fontsize=8,
        )
    axes.set_xlabel("step")
