"""Progress of a run, for the person who watches it.

A terminal shows one bar per stage. Elsewhere (a file, a pipe, a notebook) one plain line is printed
every few seconds, and for the first and the last step of a stage. Nothing here is kept on disk.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import rich.console
import rich.progress
import rich.table

from score_jax.buckets import places

LINE_SEC = 5.0  # between plain lines


class Progress:
    """Shows the steps of one stage after another; `close` removes the bar from the terminal."""

    def __init__(self, stream: TextIO | None = None, *, line_sec: float = LINE_SEC):
        """Args: stream: standard output by default; line_sec: seconds between plain lines."""
        self._stream = stream or sys.stdout
        self._line_sec = line_sec
        self._bars: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self.start_stage("", 0)

    def start_stage(self, stage: str, steps: int) -> None:
        """Starts a stage of `steps` steps; later calls of `show` belong to it."""
        self._stage, self._steps = stage, steps
        self._first: tuple[int, float] | None = None  # first step shown and when
        self._last_line_sec: float | None = None
        if steps and self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._bars = self._bars or _start_bars(self._stream)
            self._task = self._bars.add_task(stage, total=steps, text="compiling …")

    def show(self, step: int, row: Mapping[str, Any]) -> None:
        """Shows a finished step; `row` has the keys of metrics.jsonl."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        text, eta = describe(row), f"eta {self._eta(step, now)}"
        if self._bars is not None and self._task is not None:
            # A narrow terminal cuts the end off.
            self._bars.update(self._task, completed=step, text=f"{eta}  {text}")
        elif self._is_line_due(step, now):
            self._last_line_sec = now
            width = len(str(self._steps))
            self.say(f"{self._stage}  {step:>{width}}/{self._steps}  {text}  {eta}")

    def say(self, text: str) -> None:
        """Prints lines, above the progress bar if there is one."""
        text = places.shown(text)
        if self._bars is not None:
            self._bars.console.print(text, soft_wrap=True)
            return
        # If the stream's encoding lacks a character such as an arrow, "?" is printed for it.
        encoding = self._stream.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None

    def _is_line_due(self, step: int, now: float) -> bool:
        last = self._last_line_sec
        return last is None or step == self._steps or now - last >= self._line_sec

    def _eta(self, step: int, now: float) -> str:
        # Measured from the end of this process's first step, which includes compiling.
        assert self._first is not None
        first_step, first_sec = self._first
        if step <= first_step:
            return "-"
        return _clock((self._steps - step) * (now - first_sec) / (step - first_step))


def describe(row: Mapping[str, Any]) -> str:
    """The main metrics of a step on one line; absent ones are left out.

    E.g. `reward 0.41 → 0.87 (+0.46)  KL 0.80, 2.10 nats  rollout 12.3k tok/s`: of attempt 1, then
    2. Where rewards are not 0 or 1, the shares of solved problems follow: `solved 20 → 35 %`."""
    parts = []
    # In SFT the reward of every document is 1, so it is not shown.
    sampled = "tokens_per_sec/rollout" in row
    reward = _per_attempt(row, "reward") if sampled else []
    if reward:
        text = "reward " + " → ".join(f"{value:.2f}" for value in reward)
        parts.append(text + (f" ({reward[1] - reward[0]:+.2f})" if len(reward) > 1 else ""))
        solved = _per_attempt(row, "solved")
        if any(abs(a - b) > 1e-6 for a, b in zip(solved, reward, strict=False)):
            parts.append("solved " + " → ".join(f"{100 * value:.0f}" for value in solved) + " %")
    elif row.get("loss") is not None:
        parts.append(f"loss {row['loss']:.4g} nats")
    kl = _per_attempt(row, "kl") if sampled else []
    if kl:
        parts.append("KL " + ", ".join(f"{value:z.2f}" for value in kl) + " nats")
    part = "rollout" if row.get("tokens_per_sec/rollout") else "update"
    speed = row.get(f"tokens_per_sec/{part}")
    if speed:
        rate = f"{speed / 1000:.1f}k tok/s" if speed >= 1000 else f"{speed:.0f} tok/s"
        parts.append(f"{part} {rate}")
    return "  ".join(parts)


def describe_evaluation(found: Mapping[str, Any]) -> str:
    """An evaluation's main metrics on one line (the keys of evaluations/NAME.json).

    E.g. `right 34.6 → 30.5 %, Δ -4.1 points (n=2048)`: of attempt 1, then 2. Lenient shares and
    mean rewards follow where they say something else."""
    right = _per_attempt(found, "accuracy", "_")
    parts = [f"right {_percents(right)}"]
    for key, name in (("delta", "Δ"), ("delta_last", "last − first")):
        if key in found:
            parts.append(f"{name} {100 * found[key]:+.1f} points")
    if (lenient := _per_attempt(found, "lenient", "_")) and lenient != right:
        parts.append(f"leniently {_percents(lenient)}")
    if reward := _per_attempt(found, "reward", "_"):
        parts.append("mean reward " + " → ".join(f"{value:.3f}" for value in reward))
    return f"{', '.join(parts)} (n={found['n']})"


def _percents(shares: Sequence[float]) -> str:
    return " → ".join(f"{100 * share:.1f}" for share in shares) + " %"


def model_size(parameters: int, trained: int, weight_bytes: int, memory: str) -> str:
    """A model's size and the memory for it, on one line.

    Args:
      parameters: all of them, adapters included; trained: how many of these are trained.
      weight_bytes: of all parameters as they are held between steps.
      memory: `peaks.memory()`.
    """
    share = "all" if trained == parameters else f"{trained:,} ({trained / parameters:.2%})"
    return (
        f"model: {parameters:,} parameters, {share} trained; {weight_bytes / 1e9:,.2f} GB of "
        f"weights; memory {memory}"
    )


def _start_bars(stream: TextIO) -> rich.progress.Progress:
    console = rich.console.Console(file=stream, highlight=False, markup=False, emoji=False)
    rest = rich.table.Column(ratio=1, no_wrap=True, overflow="ellipsis")  # what the others leave
    bars = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(bar_width=16 if console.width >= 110 else 6),
        rich.progress.MofNCompleteColumn(table_column=rich.table.Column(no_wrap=True)),
        rich.progress.TextColumn("{task.fields[text]}", markup=False, table_column=rest),
        console=console,
        expand=True,
        refresh_per_second=4,
    )
    bars.start()
    return bars


def _per_attempt(row: Mapping[str, Any], name: str, joint: str = "/") -> list[float]:
    """Values of NAME/attempt1, NAME/attempt2, … before the first that is absent or null."""
    values: list[float] = []
    while (value := row.get(f"{name}{joint}attempt{len(values) + 1}")) is not None:
        values.append(value)
    return values


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
