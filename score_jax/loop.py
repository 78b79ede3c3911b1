"""The training loop: every stage in order, evaluation before the first and after each.

Running the same command again resumes. Where a run goes on, first match:
  1. the newest checkpoint of the latest stage that has one (DIR/checkpoints/STAGE/STEP);
  2. the beginning.
A stage starts from the params its predecessor ended with, or the stage it names (`start`), and with
a fresh optimizer. The reference of the KL terms is the base model, what the stage named "base" made
or else the loaded weights, unless the stage names another one.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.batches import documents
from score_jax.config.build import to_dict
from score_jax.config.settings import Settings, StageSettings
from score_jax.evaluation.evaluate import Interrupted, evaluate
from score_jax.learner import step
from score_jax.report.run_page import page, plots, summary
from score_jax.rl import adaptive
from score_jax.run import Run, watch
from score_jax.runtime import hosts
from score_jax.structs import Params
from score_jax.workdir import alarms, settings_check
from score_jax.workdir.runlog import RunLog, package_versions, read_metrics

DONE, STOPPED = 0, 75  # exit statuses; 75: saved after a signal, run the same command again


def train(
    settings: Settings,
    folder: str,
    *,
    base_from: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Runs the recipe to its end, or until `stop` says so, and returns the exit status.

    Args:
      base_from: work directory of a run whose base model a new run begins with; empty: none.
    Raises: InputError for settings, files or a work directory that do not fit.
    """
    path = Path(folder)
    stages = list(settings.recipe)
    names = stages if "base" in stages else ["base", *stages]
    if hosts.lead_says(lambda: _begin(path, settings, names, base_from)):
        return DONE
    wandb = settings.logging.wandb
    with (
        RunLog(path, primary=hosts.is_lead(), wandb=wandb) as log,
        watch(settings, path, log) as watching,
    ):
        run = Run.start(settings, path, log, watching, stop=hosts.agree(stop))
        log.write_config(to_dict(settings), device=_device())
        settings_check.check_shared(path)
        at, at_step = run.position()
        where = f"goes on at {stages[at]}, step {at_step}" if at_step else "begins"
        log.say(f"{path}: {' → '.join(stages)} on {_device()}; {where}, compiling first …")
        try:
            _all_stages(run)
        except Interrupted:
            log.say(f"stopped by a signal and saved in {path}; the same command goes on.")
            return STOPPED
        made = {
            "compiled": watching.misses,
            "from_cache": watching.hits,
            "late": len(watching.late),
        }
        if hosts.is_lead():
            result = summary.write(path, names, log.wall_sec, package_versions(), made)
            log.say(summary.table(result))
            _report(run, page.write, plots.write)
            log.say(f"The run page: {path / 'report' / 'index.html'}")
    return DONE


def _begin(path: Path, settings: Settings, names: list[str], base_from: str) -> bool:
    """Looks into the work directory before anything is loaded; whether all is done already."""
    settings_check.check_same_settings(path, settings)
    if base_from:
        settings_check.take_base(path, Path(base_from), settings)
    last = settings.recipe[-1]
    if not settings_check.is_complete(path, last, names, settings.stages[last].steps):
        return False
    print(summary.table(json.loads((path / "report" / "summary.json").read_text())))
    print(f"{path}: all stages are done; nothing to do.")
    return True


def _all_stages(run: Run) -> None:
    """Every stage from where the run stands; Interrupted after saving if `stop` said so."""
    recipe = run.settings.recipe
    first, at_step = run.position()
    run.log.truncate_after(recipe, recipe[first], at_step)
    params = run.params_after(recipe[first - 1]) if first else None
    reference = run.base_reference(recipe[first])
    if params is None:
        params = run.experiment.initial_params()
        if recipe[0] != "base":
            _evaluate(run, "base", params, reference)
    for i, name in enumerate(recipe[first:], start=first):
        stage = run.settings.stages[name]
        params = run.params_of(stage.start) if stage.start else params
        against = run.params_of(stage.reference) if stage.reference else reference
        params = _stage(run, i, params, against)
        _evaluate(run, name, params, reference, run.steps_before(i + 1))
        if name == "base":
            reference = jax.tree.map(jax.numpy.copy, params)


def _stage(run: Run, index: int, params: Params, reference: Params | None) -> Params:
    """Trains one stage from its newest checkpoint, or from `params`, to its end.

    Its first update frees `params`, as the state is donated; they must not be the reference too.
    """
    name = run.settings.recipe[index]
    stage = run.settings.stages[name]
    state = run.fresh_state(name, params)
    # Documents are learned as they stand: no KL holds them to anything.
    against = reference if stage.objective == "rl" else None
    source = documents.source(run, index, against)
    anchor = _Anchor(stage.kl_attempt1, stage.kl_target)
    alarm = _Alarm(run, name)
    before = run.steps_before(index)

    def follow(pending: _Pending) -> None:
        with run.watchdog.phase("update"):
            logged = pending.log(run.log)
        anchor.follow(logged)
        alarm.look(logged)

    with run.checkpoints(name) as saved:
        done = run.latest_step(name) or 0
        if done:
            state, extra = saved.restore(done, state)
            jax.tree.map(lambda x: x.delete(), params)  # whoever else holds them
            source.set_state(extra["data"])
            anchor.coefficient = extra["kl_attempt1"]
        run.log.start_stage(name, steps=stage.steps, steps_before=before)
        source.prepare(state)
        if run.evaluates(stage, done):  # it may have been stopped behind the save of this step
            _evaluate(run, f"{name}-{done}", state.params, reference, before + done)
        pending: _Pending | None = None
        waits = _dispatch_waits()
        for number in range(done + 1, stage.steps + 1):
            run.watchdog.at(name, number)
            if pending and waits:
                follow(pending)
                pending = None
            began = time.perf_counter()
            dispatched = source.dispatch(state.params, number)
            if not waits:
                if pending:
                    # Step n-1's metrics, fetched when step n's rollout is already queued.
                    follow(pending)
                began = time.perf_counter()
            batch, measured = source.collect(dispatched, began)
            started = time.perf_counter()
            with run.phase("update", name, batch.tokens.shape[1]):
                state, metrics = step.train_step(
                    state, against, batch, stage=anchor.hold(stage), base=run.experiment.base
                )
                stopping = run.stop()
            measured |= {"kl_coefficient": anchor.coefficient} if stage.kl_target else {}
            pending = _Pending(number, metrics, measured, started, batch.tokens.size)
            last = number == stage.steps
            evaluating = run.evaluates(stage, number)
            if stopping or last or evaluating or number % run.settings.checkpoint.every == 0:
                # A saved step is a logged step, and an evaluation's time is not an update's.
                follow(pending)
                pending = None
                saved.save(state, _extra(source, anchor), best=run.best_step(name))
            if stopping and not last:
                raise Interrupted
            if evaluating:
                _evaluate(run, f"{name}-{number}", state.params, reference, before + number)
        if not stage.steps:
            saved.save(state, _extra(source, anchor))
    return state.params


def _extra(source: Any, anchor: "_Anchor") -> dict[str, Any]:
    """What a checkpoint holds besides the train state."""
    return {"data": source.get_state(), "kl_attempt1": anchor.coefficient}


def _evaluate(
    run: Run, name: str, params: Params, reference: Params | None, steps_before: int = 0
) -> None:
    """Evaluates once; what an earlier run found stays."""
    if hosts.lead_says((run.folder / "evaluations" / f"{name}.json").exists):
        return
    if run.stop():
        raise Interrupted
    with run.phase("evaluation"):
        weights = run.experiment.weights(params)
        result = evaluate(
            run.experiment,
            weights,
            run.test_problems,
            reference=None if reference is None else run.experiment.weights(reference),
            stop=run.stop,
        )
    run.log.write_transcripts(name, result.transcripts)
    run.log.write_evaluation(name, result.metrics)
    run.log.show_evaluation(steps_before, result.metrics, result.transcripts)
    shown = [
        f"{key.replace('accuracy_', '')} {value:.3f}"
        for key, value in result.metrics.items()
        if key.startswith(("accuracy", "delta"))
    ]
    run.log.say(f"evaluated {name}: {', '.join(shown)} (n={result.metrics['n']})")
    _report(run, page.write)


def _report(run: Run, *parts: Callable[[Path], Any]) -> None:
    """Writes parts of the report anew. Whatever may go wrong there, the run goes on."""
    for write in parts if hosts.is_lead() else ():
        try:
            write(run.folder)
        except Exception as error:
            run.log.say(f"{write.__module__} failed: {type(error).__name__}: {error}")


@dataclasses.dataclass
class _Pending:
    """A dispatched update whose metrics are still on the device."""

    number: int
    metrics: dict[str, jax.Array]
    measured: dict[str, float]  # what the host measured while making the batch
    started: float
    tokens: int

    def log(self, log: RunLog) -> dict[str, float]:
        """Waits for the update, checks it, logs it and returns what was logged."""
        metrics = {key: float(value) for key, value in jax.device_get(self.metrics).items()}
        seconds = time.perf_counter() - self.started
        for key in ("loss", "grad_norm"):
            if not np.isfinite(metrics[key]):
                raise FloatingPointError(
                    f"{key} is {metrics[key]} at step {self.number}: the update is lost and the "
                    "params with it. Lower the stage's learning_rate, or raise its KL "
                    "coefficients, and go on from the last checkpoint."
                )
        rate = {"sec/update": seconds, "tokens_per_sec/update": self.tokens / seconds}
        logged = {**metrics, **self.measured, **rate}
        log.log(self.number, logged)
        return logged


@dataclasses.dataclass
class _Anchor:
    """The KL coefficient of attempt 1, which may adapt (rl/adaptive.py)."""

    coefficient: float
    target: float  # nats; 0: it does not adapt

    def hold(self, stage: StageSettings) -> StageSettings:
        """The stage with the coefficient of now."""
        return dataclasses.replace(stage, kl_attempt1=self.coefficient)

    def follow(self, metrics: Mapping[str, float]) -> None:
        """After a step."""
        if self.target:
            self.coefficient = adaptive.next_coefficient(
                self.coefficient, metrics["kl/attempt1"], self.target
            )


class _Alarm:
    """Tells each alarm of an RL stage once, in the step in which it comes (alarms.py)."""

    def __init__(self, run: Run, stage: str):
        self._run, self._stage = run, stage
        self._told: set[str] = set()
        self._rows: list[Mapping[str, float]] = []
        if (run.folder / "metrics.jsonl").exists():  # of before a resume
            self._rows += [row for row in read_metrics(run.folder) if row["stage"] == stage]

    def look(self, row: Mapping[str, float]) -> None:
        """After a step."""
        settings = self._run.settings
        self._rows.append(row)
        if settings.stages[self._stage].objective != "rl":
            return
        for found in alarms.of_steps(self._rows, settings.model.dtype):
            if found.name not in self._told:
                self._told.add(found.name)
                self._run.log.say(f"ALARM in {self._stage}: {found.what}. {found.advice}")


def _dispatch_waits() -> bool:
    """Whether to queue a rollout takes as long as it does: the host leads the loops of a GPU."""
    return jax.default_backend() == "gpu"


def _device() -> str:
    device = jax.devices()[0]
    on = f"{device.platform}, {os.cpu_count()} CPUs"
    on += f", {hosts.count()} processes" if hosts.count() > 1 else ""
    return f"{jax.device_count()} x {device.device_kind} ({on})"
