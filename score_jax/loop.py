"""The training loop: every stage in order, evaluation before the first and after each.

Re-running the same command resumes from the newest checkpoint (checkpoints.py). A stage starts with
a fresh optimizer, from the params that the stage before it ended with or the stage that it names
(`start`). The reference of the KL terms is the base model (what the stage named "base" made, or the
loaded weights), unless the stage names another one.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from score_jax import batches, grading, jsonfiles
from score_jax import run as runs
from score_jax.batches import ahead, samples
from score_jax.buckets import places
from score_jax.config.settings import LoraSettings, Settings
from score_jax.evaluation.evaluate import digest_of, evaluate, kept_in
from score_jax.evaluation.queue import Countdown
from score_jax.learner import step
from score_jax.model.weights import fingerprint
from score_jax.problem import InputError, Problem
from score_jax.report.run_page import page, plots, summary
from score_jax.rl import adaptive
from score_jax.run import OnStep, Run, Stage
from score_jax.runtime import hosts
from score_jax.runtime.hosts import Interrupted
from score_jax.structs import Batch, Params
from score_jax.workdir import alarms, diagnosis, evaluations, lock, progress, settings_check, spool
from score_jax.workdir.diagnosis import NotFinite
from score_jax.workdir.runlog import MADE_OF, each_row, package_versions, read_metrics

# optimizer.nonfinite -> how many steps in a row that are not finite end the run.
NONFINITE = {"stop": 1, "skip": 10}
DONE, STOPPED = 0, 75  # exit statuses; 75: saved after a signal, run the same command again


def train(
    settings: Settings,
    folder: str,
    *,
    base_from: str = "",
    stop: Callable[[], bool] = lambda: False,
    on_step: OnStep = lambda row: None,
) -> int:
    """Runs the recipe to its end, or until `stop` says so, and returns the exit status.

    Args:
      base_from: work directory of a run whose base model a new run begins with; empty: none.
      on_step: gets the metrics of every step when they are logged.
    Raises: InputError for settings, files or a work directory that do not fit.
    """
    path = Path(folder)
    if hosts.lead_says(lambda: _is_done(path, settings)):
        return DONE
    agreed = hosts.agree(stop)
    status = STOPPED
    try:
        with lock.held(path):
            hosts.lead_says(lambda: _prepare(path, settings, base_from))
            with runs.opened(settings, path, train=True, stop=agreed, on_step=on_step) as run:
                try:
                    _train(run)
                    status = DONE
                except Interrupted:
                    run.log.say(f"stopped by a signal and saved in {path}; re-running resumes.")
    finally:
        if status != DONE and hosts.is_lead() and not lock.is_held(path):
            page.renew(path)  # it says that the run has stopped
    return status


def _is_done(path: Path, settings: Settings) -> bool:
    """Whether the run is finished already, which is said. Raises: InputError for other settings."""
    settings_check.check_same_settings(path, settings)
    if not settings_check.is_complete(path, settings):
        return False
    if ignored := settings_check.not_applied(path, settings):
        print(f"Not applied, because this run is finished: {ignored} --mode=evaluate applies them.")
    print(summary.table(jsonfiles.read(path / "report" / "summary.json")))
    print(f"{places.shown(str(path))}: all stages are done; nothing to do.")
    return True


def _prepare(path: Path, settings: Settings, base_from: str) -> None:
    """Puts the work directory in order before anything is loaded."""
    settings_check.start_over(path, settings)
    for line in evaluations.set_aside_damaged(path):
        print(line)
    settings_check.sweep(path)  # what is left of a damaged evaluation shall serve the next one
    settings_check.check_same_source(path, settings)
    if base_from:
        settings_check.take_base(path, Path(base_from), settings)
    spool.uploaded(path)


def _train(run: Run) -> None:
    """The whole recipe and its report. Raises: Interrupted, after saving, if asked to stop."""
    path, settings = run.folder, run.settings
    at, at_step = run.checkpoints.position()
    code = grading.reward_code(settings)
    if at or at_step:
        began = settings_check.began_with(path)[settings_check.REWARD_CODE]
        for name in [name for name, digest in code.items() if began.get(name, digest) != digest]:
            run.log.say(
                f"WARNING: the file of the reward {name} has changed since this run began. What "
                "follows is paid by the new code. To keep the two apart, use another --workdir."
            )
        code |= began
    of_run = {
        "sent": run.experiment.sent(run.test_problems[0]),
        settings_check.REWARD_CODE: code,
        settings_check.SOURCE_FILES: fingerprint(settings.model.source),
    }
    run.log.write_config(jsonfiles.plain(settings), device=hosts.devices(), **of_run)
    settings_check.check_shared(path)
    where = f"resumes at {settings.recipe[at]}, step {at_step}" if at or at_step else "starts"
    recipe = " → ".join(settings.recipe)
    run.log.say(f"{path}: {recipe} on {hosts.devices()}; {where}, compiling first …")
    run.log.say("Ctrl-C saves and stops; the same command resumes.")
    run.log.doing("training")
    run.log.say(run.model_size())
    _say_what_has_no_effect(run)
    run.falling_back(_all_stages)
    compiled = {
        "compiled": run.watch.misses,
        "from_cache": run.watch.hits,
        "late": len(run.watch.late),
    }
    run.report(page.write, plots.write)
    if hosts.is_lead():
        wall_sec, versions = run.log.wall_sec, package_versions()
        tests = list(run.further_tests)
        # Last: with it the run counts as complete.
        result = summary.write(path, settings.recipe, wall_sec, versions, compiled, tests)
        run.log.say(summary.table(result))
        run.log.say(f"The run page: {path / 'report' / 'index.html'}")


def _say_what_has_no_effect(run: Run) -> None:
    settings = run.settings
    if not settings.model.lora.rank and settings.model.lora != LoraSettings():
        run.log.say("config.model.lora.rank is 0, so all weights are trained, without adapters.")
    for name in settings.recipe:
        stage = settings.stages[name]
        if 0 < stage.steps <= stage.warmup_steps:
            run.log.say(
                f"config.stages.{name}: the learning rate rises during all {stage.steps} steps "
                f"(warmup_steps={stage.warmup_steps})."
            )


def _all_stages(run: Run) -> None:
    """Every stage from where the run resumes. Raises: Interrupted, after saving, if asked to."""
    recipe = run.settings.recipe
    index, at_step = run.checkpoints.position()
    run.log.truncate_after(recipe, recipe[index], at_step)
    if hosts.is_lead() and (index or at_step):
        trained = {stage.name: stage.settings.steps for stage in run.stages[:index]}
        _say_what_is_lost(run, trained | {recipe[index]: at_step})
    reference = run.base_reference(recipe[index])
    params: Params | None = None  # of the stage before; None where they are not loaded
    for stage in run.stages[index:]:
        ahead.begin(run, stage)
    if recipe[0] != "base":
        weights = functools.partial(run.experiment.initial_params, reference)
        _evaluate(run, "base", weights, reference, again=bool(index or at_step))
    _evaluate_again(run, reference)
    for stage in run.stages[index:]:
        if stage.settings.start:
            params = None
        named = stage.settings.reference
        against = run.params_of(named) if named else reference
        start = functools.partial(_start_of, run, stage, params, reference)
        params = None  # the stage donates them
        params = _stage(run, stage, start, against, reference)
        _evaluate(run, stage.name, params, reference, stage.steps_before + stage.settings.steps)
        if stage.name == "base":
            reference = _copied(params)


def _say_what_is_lost(run: Run, trained: Mapping[str, int]) -> None:
    path = run.folder / "metrics.jsonl"
    logged = collections.Counter(row["stage"] for row in each_row(path))
    lost = [
        f"{steps - logged[name]} of the {steps} steps of {name}"
        for name, steps in trained.items()
        if logged[name] < steps
    ]
    if lost:
        run.log.say(
            f"WARNING: {path} lacks {' and '.join(lost)} that were trained: lines were lost, and "
            "curves have gaps. The checkpoints are not affected."
        )


@jax.jit
def _copied(params: Params) -> Params:
    return jax.tree.map(jax.numpy.copy, params)


def _start_of(run: Run, stage: Stage, params: Params | None, reference: Params | None) -> Params:
    """What a stage starts from. params: of the stage before, where they are loaded."""
    if stage.settings.start:
        return run.params_of(stage.settings.start)
    if params is None and stage.index:
        return run.checkpoints.params(run.stages[stage.index - 1].name)
    return run.experiment.initial_params(reference) if params is None else params


def _stage(
    run: Run,
    stage: Stage,
    start: Callable[[], Params],
    against: Params | None,
    base: Params | None,
) -> Params:
    """Trains one stage from its newest checkpoint, or else from `start()`, to its end.

    Args:
      start: params that the first update frees, as the state is donated.
      against: the reference of the KL terms; must be other arrays than the trained params.
      base: the base model, which evaluations within the stage are compared with.
    """
    name, settings, experiment = stage.name, stage.settings, run.experiment
    against = against if settings.objective == "rl" else None  # SFT has no KL terms
    source = batches.of_stage(run, stage, against)
    updates = _Updates(run, stage)
    with run.checkpoints.of_stage(name) as saved:
        done = run.checkpoints.latest_step(name) or 0
        if done:
            state, extra = saved.state(done, experiment.state_shapes(settings))
            source.set_state(extra["data"])
            updates.kl_attempt1 = extra["kl_attempt1"]
        else:
            state = experiment.first_state(settings, start())
        del start
        if run.checkpoints.set_aside_damaged():  # the one before them has been read
            saved.reload()
        run.log.start_stage(name, steps=settings.steps, steps_before=stage.steps_before)
        source.prepare(state)
        within = run.settings.evaluation
        every = 0 if name in within.every_except else within.every

        def save(best: int | None = None) -> None:
            extra = {"data": source.get_state(), "kl_attempt1": updates.kl_attempt1}
            with run.waits("save"):
                spool.uploaded(run.folder)  # what a checkpoint follows is there before it
            saved.save(state, extra, best)

        def evaluate_now(number: int) -> None:
            at, steps = f"{name}-{number}", stage.steps_before + number
            _evaluate(run, at, state.params, base, steps, most=within.every_problems)

        if stage.evaluates(done, every):  # the run may have been stopped after saving this step
            evaluate_now(done)
        numbers = range(done + 1, settings.steps + 1)
        for number in run.profile.steps(name, numbers, wait=updates.finish, say=run.log.say):
            run.watchdog.at(name, number)
            if _dispatch_waits():
                updates.finish()
            began = run.clock.now()
            rollout = source.dispatch(state.params, number)  # problems -> rollout
            if updates.finish():  # step n-1's metrics are fetched when step n's rollout is queued
                began = run.clock.now()
            try:
                batch, measured = source.batch(rollout, began)  # -> grade
            except NotFinite as error:
                updates.stop(number, str(error), error.batch, state.params, {})
            started = run.clock.now()
            now = dataclasses.replace(settings, kl_attempt1=updates.kl_attempt1)
            with run.phase("update", name, batch.tokens.shape[1]):  # -> shape -> update
                state, metrics = step.train_step(
                    state, against, batch, stage=now, base=experiment.base, advantages=True
                )
                stopping = run.stop()
            measured |= {"kl_coefficient": now.kl_attempt1} if settings.kl_target else {}
            advantage_BA = metrics.pop(step.ADVANTAGES)
            updates.pending = _Pending(
                *(number, metrics, measured, started, batch.tokens.size, batch, state.params),
                *(source.taken, advantage_BA),
            )
            last, evaluating = number == settings.steps, stage.evaluates(number, every)
            if stopping or last or evaluating or number % run.settings.checkpoint.every == 0:
                updates.finish()  # a saved step is a logged step
                save(best=run.checkpoints.best_step(name))
            if stopping and not last:
                raise Interrupted
            if evaluating:
                evaluate_now(number)
        if not settings.steps:
            save()
    return state.params


class _Set(NamedTuple):
    """A test set on which a stage, or a step of one, is still to be evaluated."""

    test: str  # its name; empty for the main one
    name: str  # of the file in evaluations/
    problems: list[Problem]
    digest: str  # of what the evaluation depends on


def _left(run: Run, name: str, most: int = 0) -> list[_Set]:
    """Those without a file, or with one that was made of other things. most: as in `_evaluate`."""
    left = []
    for test, problems in [*run.further_tests.items(), ("", run.test_problems)]:
        of_set, problems = f"{name}.{test}" if test else name, problems[: most or None]
        path = run.folder / "evaluations" / f"{of_set}.json"
        digest, made_of = hosts.lead_says(functools.partial(_made_of, run, path, problems))
        if made_of == digest:
            continue
        left.append(_Set(test, of_set, problems, digest))
        if made_of and of_set not in run.warned:
            run.warned.add(of_set)
            run.log.say(
                f"{of_set} is evaluated again: settings of evaluations, problems, the reward's "
                f"code or the files of model.source are others than those of {path}."
            )
    return left


def _made_of(run: Run, path: Path, problems: Sequence[Problem]) -> tuple[str, str]:
    """Digests of what an evaluation depends on: now, and of what its file was made of; "": none."""
    digest, found = digest_of(run.experiment, problems), evaluations.read(path)
    return digest, found.get(MADE_OF, digest) if found else ""


def _evaluate_again(run: Run, reference: Params | None) -> None:
    """Makes up for evaluations of what is trained: files were lost, or were made of other things.

    Raises: InputError if the checkpoint that a stage ended with is lost too.
    """
    index, at_step = run.checkpoints.position()
    wanted = [
        (stage, stage.settings.steps, stage.name, 0)
        for stage in run.stages[:index]
        if _left(run, stage.name)
    ]
    stages = {stage.name: stage for stage in run.stages[: index + 1]}
    for name, number in hosts.lead_says(lambda: evaluations.set_aside(run.folder)):
        # Later steps are trained and evaluated again.
        if name in stages and (stages[name].index, number) < (index, at_step):
            most = run.settings.evaluation.every_problems
            wanted.append((stages[name], number, f"{name}-{number}", most))
    there = hosts.lead_says(lambda: [*map(str, places.checkpoints_in(run.folder / "checkpoints"))])
    for stage, number, name, most in wanted:
        checkpoint = run.folder / "checkpoints" / stage.name / str(number)
        file = run.folder / "evaluations" / f"{name}.json"
        lacking = f"{file} is to be made again, and {checkpoint} is missing, from which it could be"
        if str(checkpoint) in there:
            base = None if stage.name == "base" else reference
            params = functools.partial(run.checkpoints.params, stage.name, number)
            _evaluate(run, name, params, base, most=most, again=True)
        elif hosts.lead_says(file.exists):
            run.log.say(f"WARNING: {lacking}: the report shows it as it was.")
        elif name == stage.name:
            raise InputError(
                f"{lacking}. Put one of the two back, or start again in another --workdir."
            )
        else:
            run.log.say(f"{lacking}: the report leaves it out.")


def _evaluate(
    run: Run,
    name: str,
    params: Params | Callable[[], Params],
    reference: Params | None,
    steps_before: int = 0,
    most: int = 0,
    again: bool = False,
) -> None:
    """Evaluates, unless an earlier process of this run has.

    Args:
      params: or what loads them, called if there is something to evaluate.
      most: problems of each set; 0: all that are evaluated.
      again: whether it was shown before; it is not shown again.
    """
    left = _left(run, name, most)
    if not left:
        return
    if run.stop():
        raise Interrupted
    params = params() if callable(params) else params
    weights = run.experiment.weights(params)
    for test, of_set, problems, digest in left:
        kept = kept_in(run.folder, of_set, digest, weights=name)
        # A phase of its own: whether the last rows move into fewer slots depends on their lengths.
        with run.phase("evaluation", of_set):
            result = evaluate(
                run.experiment,
                weights,
                problems,
                reference=None
                if reference is None
                else run.experiment.read_beside(params, reference),
                stop=run.stop,
                kept=kept,
                countdown=Countdown(
                    run.log.say, f"evaluating {of_set}", goes_on=run.watchdog.goes_on
                ),
                prompt_tokens=run.test_prompt_tokens,
                training=True,
            )
        run.log.write_transcripts(of_set, result.transcripts)
        run.log.write_evaluation(of_set, result.metrics, digest)
        kept.remove()
        if not again:  # a file of TensorBoard that began here would hide the steps since
            run.log.show_evaluation(steps_before, result.metrics, result.transcripts, test=test)
        found = result.metrics
        on = f" on {test}" if test else ""
        run.log.say(f"evaluated {name}{on}: {progress.describe_evaluation(found)}")
        if not (test or again) and hosts.is_lead():
            _raise_evaluation_alarms(run, name, found)
    # A page is read from all steps so far; that of a long run takes seconds.
    run.report(page.write, seldom=name not in ("base", *run.settings.recipe))


def _raise_evaluation_alarms(run: Run, name: str, found: Mapping[str, Any]) -> None:
    if name == "base":
        alarms.Standing(run.log.say).update(name, alarms.of_base(found))
        return
    stage, _, within = name.partition("-")
    if run.settings.stages[stage].objective == "rl":
        base = evaluations.read(run.folder / "evaluations" / "base.json")
        if base:
            run.evaluated.update(name, alarms.of_evaluations(base, found, ended=not within))


class _Pending(NamedTuple):
    """A dispatched update whose metrics are still on the device."""

    number: int
    metrics: dict[str, jax.Array]
    measured: dict[str, float]  # by the host, while it made the batch
    started: float  # by the run's clock
    tokens: int
    batch: Batch
    params: Params  # after the step; as before it, if it was not finite
    taken: list[tuple[int, dict[str, Any]]]  # of samples.jsonl, by row of the batch
    advantage_BA: jax.Array


class _Updates:
    """The updates of a stage: each is logged one step later, while the device has new work.

    What a logged step changes: the KL coefficient of attempt 1, which may adapt (rl/adaptive.py),
    and the alarms (workdir/alarms/). An alarm is logged at the step that raises it and when it has
    cleared. A step that is not finite stops the run, or is skipped and counted.
    """

    def __init__(self, run: Run, stage: Stage):
        self.pending: _Pending | None = None
        self.kl_attempt1 = stage.settings.kl_attempt1
        self._run, self._stage = run, stage
        self._rows: list[Mapping[str, float]] = []  # others than process 0 have those since
        if hosts.is_lead() and (run.folder / "metrics.jsonl").exists():  # of steps before a resume
            self._rows += [row for row in read_metrics(run.folder) if row["stage"] == stage.name]
        # Steps that were not taken; their numbers are null in the log.
        self._skipped: list[int] = hosts.lead_says(
            lambda: [int(row["step"]) for row in self._rows if not _finite(row)]
        )
        self._rows = alarms.looked_at(self._rows)
        self._alarms = alarms.Standing(run.log.say, self._found(self._rows))
        self._compared = False  # whether sampler and learner were, in this process

    def finish(self) -> bool:
        """Waits for the pending update, if there is one, checks it and logs it."""
        if self.pending is None:
            return False
        number, on_device, measured, started, tokens, batch, params, taken, advantage_BA = (
            self.pending
        )
        self.pending = None
        with self._run.waits("update"):
            metrics = {key: float(value) for key, value in jax.device_get(on_device).items()}
            seconds = self._run.clock.now() - started
            if bad := diagnosis.first_bad(metrics):
                self._not_finite(number, bad, batch, params, metrics)
            if self._skipped:
                measured = measured | {"skipped": len(self._skipped)}
            rate = {"sec/update": seconds, "tokens_per_sec/update": tokens / seconds}
            row = {**metrics, **measured, **rate, **self._run.clock.taken(), **hosts.taken_bytes()}
            self._run.log.log(number, row)
            if taken and hosts.is_lead():
                lines = samples.with_advantages(taken, advantage_BA)
                self._run.log.write_samples(number, lines)
        self._run.on_step({"stage": self._stage.name, "step": number, **row})
        self._rows = alarms.looked_at([*self._rows, row])
        settings = self._stage.settings
        if settings.kl_target and np.isfinite(row["kl/attempt1"]):
            self.kl_attempt1 = adaptive.next_coefficient(
                self.kl_attempt1, row["kl/attempt1"], settings.kl_target
            )
        if settings.objective == "rl":
            self._raise_alarms()
        return True

    def _not_finite(
        self, number: int, bad: str, batch: Batch, params: Params, metrics: Mapping[str, float]
    ) -> None:
        what, most = f"{bad} is {metrics[bad]}", NONFINITE[self._run.settings.optimizer.nonfinite]
        if bad.startswith(diagnosis.OVERFLOWS):  # the update was made, so it cannot be skipped
            self.stop(number, what, batch, {}, metrics)
        self._skipped.append(number)
        if self._skipped[-most:] == [*range(number - most + 1, number + 1)]:
            what += f", as {most} steps in a row were" if most > 1 else ""
            self.stop(number, what, batch, params, metrics)
        where = f"{self._stage.name}, step {number}"
        self._run.log.say(f"SKIPPED {where}: {what}; {len(self._skipped)} skipped in this stage.")

    def stop(
        self, number: int, what: str, batch: Batch, params: Params, metrics: Mapping[str, float]
    ) -> NoReturn:
        """Saves what step `number` was to learn from. Raises: InputError that names it.

        params: before the step; empty if it was made, and they are lost.
        """
        run, stage = self._run, self._stage
        facts = {
            "what": what,
            "stage": stage.name,
            "step": number,
            "key": jax.random.key_data(jax.random.fold_in(stage.key, number)).tolist(),
            "kl_attempt1": self.kl_attempt1,
            "metrics": diagnosis.plain_metrics(metrics),
            "device": hosts.devices(),
            "settings": jsonfiles.plain(run.settings),
            "columns": run.experiment.columns,  # which may depend on the problems
        }
        name = f"{stage.name}-{number}"
        path = diagnosis.write(run.folder / "diagnosis", name, batch, params, facts)
        skip = (
            ", or skip such steps: the same command with --config.optimizer.nonfinite=skip goes on "
            "from the last checkpoint"
        )
        raise InputError(
            f"step {number} of {stage.name}: {what}. "
            f"{'The step was not taken' if params else 'It was not saved'}, and the run has "
            f"stopped. What it was to learn from is in {path}: --mode=replay --file={path} repeats "
            "it and says which numbers go wrong. Lower the stage's learning_rate or raise its KL "
            f"coefficients in a new --workdir{skip if params else ''}."
        )

    def _found(self, rows: Sequence[Mapping[str, float]]) -> list[alarms.Alarm]:
        settings = self._run.settings
        return alarms.of_steps(
            rows,
            settings.model.dtype,
            stage=dataclasses.asdict(self._stage.settings),
            samples=settings.rollout.rows,
            problems=settings.rollout.problems_per_step,
        )

    def _raise_alarms(self) -> None:
        found = self._found(self._rows)
        if not self._compared:
            # The first step of a process: its sampler and learner may be other programs than those
            # of the steps before a resume.
            found = list({a.name: a for a in (*self._found(self._rows[-1:]), *found)}.values())
            self._compared = True
        self._alarms.update(self._stage.name, found)


def _finite(row: Mapping[str, Any]) -> bool:
    return row.get("loss", 0.0) is not None and row.get("grad_norm", 0.0) is not None


def _dispatch_waits() -> bool:
    """Whether dispatching a rollout waits for it: on a GPU the host runs the loop's condition."""
    return jax.default_backend() == "gpu"
