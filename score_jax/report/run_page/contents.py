"""A work directory -> what its run page shows, as plain JSON values.

Only files are read, so a running job, a finished one and one on another machine are shown alike.
Curves are thinned to POINTS per stage. Transcripts are those of base, of the end of each stage and
of the latest evaluation, up to a total number of characters; the page says how many of how many it
holds.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.report.run_page import differences, transcripts
from score_jax.report.run_page.transcripts import LATEST
from score_jax.workdir import alarms, lock, runlog

POINTS = 300  # of a curve, per stage
TRANSCRIPT_CHARACTERS = 40_000_000  # on the page, of all evaluations together
_LOADED = {"stage": None, "step": 0, "within": False}  # the place of weights before training
_KL = ("kl_attempt1", "kl_attempt2", "early_attempts")  # settings of a stage; curves need them
# Of a stage's time; the last three are not parts of steps. Older runs have the first three alone.
_PARTS = ("rollout", "grade", "update", "compile", "evaluation", "save")


def of(
    workdir: str | os.PathLike[str], transcript_characters: int = TRANSCRIPT_CHARACTERS
) -> dict[str, Any]:
    """Everything the page shows.

    Raises: InputError if config.json is missing, or a file is not as a run writes it.
    """
    folder = Path(workdir)
    config = _config(folder)
    settings = config["settings"]
    plan = _plan(settings)
    by_stage = {stage["name"]: StageMetrics() for stage in plan}
    wall_sec = None
    for row in runlog.each_row(folder / "metrics.jsonl"):
        wall_sec = row.get("wall_sec")
        if row["stage"] in by_stage:
            by_stage[row["stage"]].add(row)
    evaluations = _evaluations(folder, plan)
    tests = settings.get("problems", {}).get("tests") or ()
    further = {test: _evaluations(folder, plan, test) for test in tests}
    stages = [{**stage, **by_stage[stage["name"]].curves()} for stage in plan]
    for stage, seconds in zip(stages, _times(by_stage.values()), strict=True):
        stage["seconds"] = seconds
    return {
        "name": folder.resolve().name,
        "written": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "written_sec": time.time(),
        "finished": {stage["name"] for stage in plan} <= {e["name"] for e in evaluations},
        "alive": lock.is_held(folder),
        "wall_sec": wall_sec,
        "config": config,
        "differences": differences.of(settings),
        "scaling": _scaling(folder),
        "stages": stages,
        "evaluations": evaluations,
        "latest": {} if any(e["name"] == LATEST for e in evaluations) else _latest(folder, tests),
        "further_tests": {test: found for test, found in further.items() if found},
        "alarms": list(_alarms(plan, by_stage, evaluations, settings)),
        "transcripts": transcripts.of(folder, evaluations, plan, transcript_characters),
    }


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _plan(config["settings"])
        config["settings"]["model"]["dtype"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}), so the page cannot be made. "
            "Name the work directory of a run."
        ) from error
    return config


def _plan(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The recipe's stages; `before` counts the steps of all earlier ones."""
    plan: list[dict[str, Any]] = []
    before = 0
    for name in settings["recipe"]:
        stage = settings["stages"][name]
        plan.append(
            {
                "name": name,
                "steps": stage["steps"],
                "before": before,
                "objective": stage["objective"],
                **{key: stage[key] for key in _KL if key in stage},
            }
        )
        before += stage["steps"]
    return plan


class StageMetrics:
    """What the page tells of a stage's steps, read one after the other.

    However long a stage is, at most POINTS points of its curves are kept, and the rows that alarms
    look at.
    """

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []  # for alarms
        self.seconds = dict.fromkeys(_PARTS, 0.0)
        self.wall_sec: float | None = None  # of the run, at the last step
        self._per_point = 1
        self._points: list[_Point] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl; steps must ascend."""
        row = runlog.with_solved(row)
        self.rows = alarms.looked_at([*self.rows, row])
        for part in _PARTS:
            self.seconds[part] += row.get(f"sec/{part}") or 0.0
        self.wall_sec = row.get("wall_sec") or 0.0
        if self._is_full() and len(self._points) == POINTS:
            points = iter(self._points)
            self._points = [first.joined(next(points, None)) for first in points]
            self._per_point *= 2
        if self._is_full():
            self._points.append(_Point())
        self._points[-1].add(row)

    def _is_full(self) -> bool:
        """Whether the next step begins a point."""
        return not self._points or self._points[-1].steps == self._per_point

    def curves(self) -> dict[str, Any]:
        """Each metric as means over `per_point` neighbouring steps; None where no step has a value.

        A reason that a step does not name has the share 0 there.
        """
        keys = {key for point in self._points for key in point.sums}
        return {
            "per_point": self._per_point,
            "step": [point.last for point in self._points],
            "metrics": {
                key: [point.mean(key) for point in self._points]
                for key in sorted(keys - {"step", "wall_sec"})
            },
        }


class _Point:
    """Some neighbouring steps."""

    def __init__(self) -> None:
        self.steps, self.last = 0, 0
        self.sums: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        self.steps, self.last = self.steps + 1, row["step"]
        for key, value in row.items():
            if _is_number(value):
                self.sums[key] = self.sums.get(key, 0.0) + value
                self.counts[key] += 1

    def joined(self, other: "_Point | None") -> "_Point":
        """With the steps after these."""
        if other:
            self.steps, self.last = self.steps + other.steps, other.last
            for key, value in other.sums.items():
                self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts += other.counts
        return self

    def mean(self, key: str) -> float | None:
        count = self.steps if key.startswith("reason/") else self.counts[key]
        # Five digits are enough for a curve and keep the page small.
        return float(f"{self.sums.get(key, 0.0) / count:.5g}") if count else None


def _times(stages: Iterable[StageMetrics]) -> Iterator[dict[str, float]]:
    """Seconds of each stage by part; `other` is the rest of its wall time."""
    clock = 0.0
    for stage in stages:
        seconds, ended = stage.seconds, stage.wall_sec
        # Overlapping parts can add up to more than the wall time.
        other = 0.0 if ended is None else max(0.0, ended - clock - sum(seconds.values()))
        clock = max(clock, ended or 0.0)
        yield {part: round(value, 3) for part, value in {**seconds, "other": other}.items()}


def _evaluations(
    folder: Path, plan: Sequence[Mapping[str, Any]], test: str = ""
) -> list[dict[str, Any]]:
    """The evaluations of base and of each stage, in order of their steps.

    test: the name of a further test set; empty: of the main one.
    `stage` is the stage of the recipe, None for the weights that training began with. `step` counts
    from the beginning of the run. `within` is true unless the evaluation is at the stage's end.
    If there are none of these, that of --mode=evaluate is shown, of weights as they were loaded.
    """
    found = []
    of_test = f".{test}" if test else ""
    paths = (folder / "evaluations").glob(f"*{of_test}.json")
    placed = {path: _place(path.stem.removesuffix(of_test), plan) for path in paths}
    latest = folder / "evaluations" / f"{LATEST}{of_test}.json"
    if not any(placed.values()) and latest in placed:
        placed[latest] = _LOADED
    for path, place in placed.items():
        if place is None:
            continue  # `latest`, of another recipe, or of another test set
        found.append({"name": path.stem.removesuffix(of_test), **place, **_evaluation(path)})
    return sorted(found, key=lambda e: (e["step"], e["within"]))


def _evaluation(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        metrics["n"], metrics["interval"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not an evaluation ({error}). Remove it and run the same command again."
        ) from error
    return metrics


def _latest(folder: Path, tests: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What --mode=evaluate wrote of the newest checkpoint, by test set; "" is the main one.

    Before any training that is the evaluation of `base`, which is not shown twice.
    """
    found = {}
    for test in ("", *tests):
        latest, base = (
            folder / "evaluations" / f"{name}{test and f'.{test}'}.json"
            for name in (LATEST, "base")
        )
        if latest.exists() and not (base.exists() and _evaluation(base) == _evaluation(latest)):
            found[test] = {"name": LATEST, **_evaluation(latest)}
    return found


def _scaling(folder: Path) -> list[dict[str, Any]]:
    """What --mode=scale wrote, in the order of the files' names."""
    return [jsonfiles.read(path) for path in sorted((folder / "scaling").glob("*.json"))]


def _place(name: str, plan: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Stage and step of the evaluation with that name; None if it is not of this recipe."""
    for stage in plan:
        if name == stage["name"]:
            ended = stage["before"] + stage["steps"]
            return {"stage": name, "step": ended, "within": False}
        stem, _, step = name.rpartition("-")
        if stem == stage["name"] and step.isdecimal():
            return {"stage": stem, "step": stage["before"] + int(step), "within": True}
    return _LOADED if name == "base" else None


def _alarms(
    plan: Sequence[Mapping[str, Any]],
    by_stage: Mapping[str, StageMetrics],
    evaluations: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Iterator[dict[str, str]]:
    base = next((e for e in evaluations if e["name"] == "base"), None)
    if base and base is evaluations[-1]:  # later the alarms of the steps say whether it lasts
        for alarm in alarms.of_base(base):
            yield {"stage": "base", "what": alarm.what, "advice": alarm.advice}
    for stage in plan:
        name = stage["name"]
        if stage["objective"] != "rl":
            continue
        rollout, dtype = settings.get("rollout", {}), settings["model"]["dtype"]
        problems = rollout.get("problems_per_step", 16)
        found = alarms.of_steps(
            by_stage[name].rows,
            dtype,
            stage=settings["stages"][name],
            samples=problems * rollout.get("samples_per_problem", 4),
            problems=problems,
        )
        own = [e for e in evaluations if e["stage"] == name]
        if base and own:
            found += alarms.of_evaluations(base, own[-1], ended=not own[-1]["within"])
        for alarm in found:
            yield {"stage": name, "what": alarm.what, "advice": alarm.advice}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
