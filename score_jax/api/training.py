"""Training from Python: the same runs as the command line's, in the same work directories.

    run = train(model, task, score(stage1=20, stage2=20), workdir="runs/sums")
    print(run.table())

The same call again resumes, and `python -m score_jax.report.run_page runs/sums` and every other
command read the folder.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_jax import loop
from score_jax.api import models
from score_jax.api.models import Model
from score_jax.api.recipes import Recipe
from score_jax.api.settings import settings_of
from score_jax.api.task import Task
from score_jax.buckets.client import is_url
from score_jax.config.settings import Settings
from score_jax.modes import evaluate, export
from score_jax.problem import InputError
from score_jax.report.run_page import page, summary
from score_jax.run import OnStep
from score_jax.runtime import hosts
from score_jax.runtime.signals import Signals, Stopped
from score_jax.workdir import named, settings_check
from score_jax.workdir.runlog import read_metrics


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run and its work directory."""

    settings: Settings
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether all stages are done; False: it was stopped, and the same call resumes."""
        return settings_check.is_complete(self.folder, self.settings)

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps, in order: the lines of metrics.jsonl."""
        return read_metrics(self.folder)

    def summary(self) -> dict[str, Any]:
        """Every stage's evaluation, by name: n, accuracies, Δ, intervals."""
        stages = self.settings.recipe
        return summary.evaluations(self.folder, stages, list(self.settings.problems.tests))

    def table(self) -> str:
        """The evaluations as a table of plain text."""
        return summary.table(self.summary())

    def page(self) -> Path:
        """Writes the run page again: one HTML file that needs no server."""
        page.write(self.folder)
        return self.folder / "report" / "index.html"

    def evaluate(self) -> dict[str, Any]:
        """Evaluates the newest checkpoint and returns its metrics (evaluations/latest.json)."""
        evaluate.evaluate_latest(self.settings, self.folder)
        return json.loads((self.folder / "evaluations" / "latest.json").read_text())

    def export(self, folder: str | Path = "", dtype: str = "", adapters: bool = False) -> Path:
        """Writes the newest checkpoint as a Hugging Face folder; by default WORKDIR/export."""
        to = named.folder(folder, f"export({folder!r})") if folder else self.folder / "export"
        export.export_latest(self.settings, self.folder, str(to), dtype=dtype, adapters=adapters)
        return to

    def model(self) -> Model:
        """The newest checkpoint as a model to ask, or to train further."""
        plain = type(self.settings.model.lora)()
        source = dataclasses.replace(self.settings.model, source=str(self.folder), lora=plain)
        return Model(source)


def train(
    model: Model | str | Path | Settings,
    task: Task | None = None,
    recipe: Recipe | None = None,
    *,
    workdir: str | Path,
    seed: int = 0,
    base_from: str | Path = "",
    on_step: OnStep = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
    **groups: Any,
) -> TrainedRun:
    """Runs a recipe to its end: evaluation, every stage with its evaluation, the run page.

    Args:
      model: of `load`, or what `load` takes; or the Settings of a whole run, and then nothing else.
      workdir: the folder of the run; the same call again resumes there.
      base_from: work directory of a run whose base model a new run begins with.
      on_step: gets the metrics of every step when they are logged (docs/operations.md names them).
      stop: asked after every step; true saves and ends the run.
      groups: rollout, evaluation, memory, optimizer, … as mappings of settings, or as a whole.
    Raises: InputError for settings, files or a work directory that do not fit; KeyboardInterrupt
      after Ctrl-C or another signal that asks to stop, once what is trained is saved.
    """
    if is_url(str(workdir)) or is_url(str(base_from)):
        raise InputError(
            "train takes local folders. Work directories in a bucket are for the command line: "
            "python -m score_jax.main --workdir=gs://…"
        )
    folder = named.folder(workdir, f"workdir={workdir!r}")
    base = str(named.folder(base_from, f"base_from={base_from!r}")) if base_from else ""
    if isinstance(model, Settings):
        if task or recipe or groups or seed:
            raise InputError(
                "train got the Settings of a whole run, and a task, recipe or settings beside it. "
                "Change the Settings with dataclasses.replace."
            )
        settings = model
    else:
        if not isinstance(task, Task) or not isinstance(recipe, Recipe):
            raise InputError(
                "train needs a model, a task and a recipe: train(load(…), Task(…), score(100, 100))"
            )
        of_model = model if isinstance(model, Model) else models.load(model)
        settings = settings_of(
            of_model.settings, task, recipe, seed=seed, folder=folder / "problems", **groups
        )
    models.forget()
    with Signals() as signals:
        noted = hosts.stop_of(signals)
        loop.train(
            settings,
            str(folder),
            base_from=base,
            on_step=on_step,
            stop=lambda: noted() or stop(),
        )
    run = TrainedRun(settings, folder)
    if signals.came:  # what the caller would do next is not wanted either
        state = "is done" if run.finished else "is saved, and the same call resumes"
        raise Stopped(f"{signals.came}: {folder} {state}")
    return run
