"""One run: its settings, its work directory, and what is made from them once for all stages.

    with opened(settings, folder) as run:
        for stage in run.stages: ...

A `Stage` is made once and then handed on as a value. Params here are what is trained: with LoRA
they are adapters, and `Experiment.weights` puts them beside the weights.
"""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from score_jax import grading
from score_jax.checkpoints import Checkpoints
from score_jax.config.settings import Settings, StageSettings
from score_jax.console import storage
from score_jax.data import pipeline, schedule
from score_jax.data import problems as problem_sets
from score_jax.data.asked import instruction_limit
from score_jax.data.sft import solutions
from score_jax.experiment import Experiment, stops_of, template_of_source
from score_jax.model.files import saved_params
from score_jax.problem import InputError, Problem
from score_jax.runtime import compiles, hosts, peaks
from score_jax.runtime.clock import Clock
from score_jax.runtime.compiles import Watch
from score_jax.runtime.profile import Profile
from score_jax.runtime.watchdog import Watchdog
from score_jax.structs import Params
from score_jax.workdir import alarms, progress, settings_check
from score_jax.workdir.runlog import RunLog

T = TypeVar("T")
REPORTING = 0.02  # of a run's time, at most, for pages before a stage's end
OnStep = Callable[[Mapping[str, Any]], None]  # gets the metrics of a step when they are logged


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a recipe: its settings, and its place in the run."""

    index: int  # in the recipe
    name: str
    settings: StageSettings
    key: jax.Array  # all its samples draw from it
    steps_before: int  # steps of all stages before it
    rl_steps_before: int  # of these, steps of RL stages

    def evaluates(self, number: int, every: int) -> bool:
        """Whether step `number` is evaluated; the last step is when the stage ends.

        every: evaluation.every.
        """
        return bool(every) and number % every == 0 and 0 < number < self.settings.steps


def stages_of(settings: Settings) -> tuple[Stage, ...]:
    """The stages of a recipe, in order."""
    found: list[Stage] = []
    steps = rl_steps = 0
    for index, name in enumerate(settings.recipe):
        stage = settings.stages[name]
        key = jax.random.fold_in(jax.random.key(settings.seed), 1 + index)
        found.append(Stage(index, name, stage, key, steps, rl_steps))
        steps += stage.steps
        rl_steps += stage.steps if stage.objective == "rl" else 0
    return tuple(found)


@dataclasses.dataclass
class Run:
    """A run whose model and problems are there."""

    settings: Settings
    folder: Path
    log: RunLog
    watch: Watch
    experiment: Experiment
    training: problem_sets.Training | None  # None: nothing is trained
    test_problems: list[Problem]
    further_tests: Mapping[str, list[Problem]] = dataclasses.field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False
    on_step: OnStep = lambda row: None
    test_prompt_tokens: int = 0  # of the longest prompt of all test sets, which share programs
    warned: set[str] = dataclasses.field(default_factory=set)  # what is logged once, by name

    def __post_init__(self) -> None:
        self._report_after = 0.0  # on the clock that does not jump
        self.watchdog = Watchdog(self.settings.watchdog)
        self.clock = Clock(self.watch.compile_sec) if self.watch else Clock()
        self.profile = Profile(self.settings.logging.profile, self.folder / "profile")
        self.stages = stages_of(self.settings)
        self.checkpoints = Checkpoints(
            self.folder,
            self.settings,
            self.experiment.param_shapes(),
            deadline=functools.partial(self.waits, "save"),
        )

    @functools.cached_property
    def evaluated(self) -> alarms.Standing:
        """The alarms of evaluations that stand."""
        return alarms.Standing(self.log.say, quiet=1)

    @classmethod
    def start(
        cls,
        settings: Settings,
        folder: Path,
        log: RunLog,
        watch: Watch,
        *,
        train: bool = True,
        stop: Callable[[], bool] = lambda: False,
        on_step: OnStep = lambda row: None,
    ) -> "Run":
        """Loads problems and model, and finds out where model-written programs can run.

        In this order: problems, rewards, prompts, and only then weights, so that what is wrong with
        the former costs no time.

        Args:
          train: whether problems to train on are needed.
        """
        where, rollout = settings.problems, settings.rollout
        if train and rollout.engine:
            _check_engine(settings)
        training = problem_sets.for_training(where, settings.seed) if train else None
        tests = {
            "": problem_sets.for_evaluation(where, settings.seed),
            **problem_sets.further_tests(where, settings.seed),
        }
        wanted = settings.evaluation.problems
        for name, found in tests.items():
            if wanted > len(found):
                log.say(
                    f"config.evaluation.problems={wanted}, and the test set {name or where.name} "
                    f"has {len(found)}: all of them are evaluated."
                )
        found = [*(training.problems if training else ()), *itertools.chain(*tests.values())]
        sandbox = grading.prepare(settings, found)
        if sandbox:
            log.stamp(sandbox=sandbox)
            log.say(f"sandbox of model-written programs: {sandbox}")
        tested = {name: found[: wanted or None] for name, found in tests.items()}
        template = template_of_source(settings)
        most = instruction_limit(settings, template)
        longest = 0
        for found in tested.values():
            checked = pipeline.evaluation_prompts(
                found,
                template.first_turn,
                max_prompt_tokens=rollout.max_prompt_tokens,
                pad_id=template.tokenizer.pad_id,
                turn=template.turn,
                max_instruction_tokens=most,
            )
            longest = max(longest, int(checked.length.max()))
        widest = 0
        stages = [settings.stages[name] for name in settings.recipe]
        if training and any(s.objective == "rl" or s.collect.filter for s in stages):
            prompts = pipeline.tokenise(training.problems, template.first_turn, template.turn)
            batch = rollout.problems_per_step
            kept = pipeline.usable(prompts, batch, rollout.max_prompt_tokens)
            schedule.drawn(
                training.problems,
                kept,
                batch=batch,
                seed=0,
                parts=training.parts,
                curriculum_steps=where.curriculum_steps,
            )
            pipeline.check_instructions(prompts, rollout.max_prompt_tokens, most)
            widest = prompts.instruction_tokens(rollout.max_prompt_tokens)
            training = dataclasses.replace(training, prompts=prompts)
        if training:
            own = solutions.of_stages(settings, training.problems, template, stops_of(settings))
            training = dataclasses.replace(training, documents=own)
        experiment = Experiment.open(settings, template, widest)
        main = tested.pop("")
        given = (settings, folder, log, watch, experiment, training, main, tested, stop, on_step)
        return cls(*given, test_prompt_tokens=longest)

    def model_size(self) -> str:
        """The model's size and the memory for it, in one line for the log."""
        trained = jax.tree.leaves(self.experiment.param_shapes())
        held = [*trained, *jax.tree.leaves(self.experiment.base)]
        return progress.model_size(
            sum(x.size for x in held),
            sum(x.size for x in trained),
            sum(x.size * x.dtype.itemsize for x in held),
            peaks.memory(),
        )

    @contextlib.contextmanager
    def phase(self, name: str, *shape: Hashable) -> Iterator[None]:
        """A part of a step: it has a deadline, and compiles its programs once for a shape."""
        with self.waits(name), self.watch.phase(name, *shape):
            yield

    @contextlib.contextmanager
    def waits(self, name: str) -> Iterator[None]:
        """A wait for a part of a step: it has a deadline, and a name in profiles and in the log."""
        before = self.log.doing(f"{name}, {self.watchdog.where}")
        try:
            with self.watchdog.phase(name), self.clock.phase(name):
                yield
        finally:
            self.log.doing(before)

    def report(self, *parts: Callable[[Path], Any], seldom: bool = False) -> None:
        """Writes parts of the report again. An error there is logged and does not end the run.

        Storage that fails does: a run that went on would count as complete without them.
        seldom: not now if it would take more than the share REPORTING of the time.
        """
        began = time.monotonic()
        if seldom and began < self._report_after:
            return
        for write in parts if hosts.is_lead() else ():
            try:
                write(self.folder)
            except Exception as error:
                if storage.lost(error, self.folder):
                    raise
                self.log.say(f"{write.__module__} failed: {type(error).__name__}: {error}")
        took = time.monotonic() - began
        self._report_after = began + took / REPORTING

    def params_of(self, stage: str) -> Params:
        """The params that a finished stage ended with; "base" is the base model in any recipe."""
        if stage == "base" and self.settings.recipe[0] != "base":
            return self.experiment.initial_params()
        return self.checkpoints.params(stage)

    def newest_params(self) -> tuple[Stage, int, Params]:
        """The stage and step of the newest checkpoint, and its params.

        Without a checkpoint: the first stage, step 0 and the loaded weights.
        """
        return self.falling_back(_newest_params)

    def falling_back(self, use: Callable[["Run"], T]) -> T:
        """`use(self)`; where the newest checkpoint cannot be read, once more with the one before.

        Raises: InputError for the newest one, if none can be read.
        """
        first: InputError | None = None
        while True:
            try:
                return use(self)
            except saved_params.Damaged as error:
                if not self.checkpoints.is_newest(error.path):
                    error = saved_params.Damaged(error.path, error.why, needed=True)
                first = first or error
                if not self.checkpoints.skip(error.path):
                    raise first from None
                index, at_step = self.checkpoints.position()
                where = f"{self.stages[index].name}, step {at_step}"
                self.log.say(f"{error.path} is damaged ({error.why}); going back to {where}.")

    def trained_so_far(self, stage: Stage, at_step: int) -> str:
        """What `newest_params` has been through, in words; empty for the loaded weights."""
        return f"{stage.name} at step {at_step}" if at_step or stage.index else ""

    def base_reference(self, stage: str) -> Params | None:
        """The frozen base model at the start of `stage`; None while it is still being trained."""
        if self.settings.recipe[0] != "base":
            return self.experiment.initial_reference()
        return None if stage == "base" else self.checkpoints.params("base")


def _newest_params(run: Run) -> tuple[Stage, int, Params]:
    index, at_step = run.checkpoints.position()
    stage = run.stages[index]
    if not index and not at_step:
        return stage, 0, run.experiment.initial_params()
    return stage, at_step, run.checkpoints.params(stage.name, at_step)


def _check_engine(settings: Settings) -> None:
    """Refuses an engine for a recipe that it cannot sample for. Raises: InputError."""
    named = f"config.rollout.engine={settings.rollout.engine}"
    stages = {name: settings.stages[name] for name in settings.recipe}
    for name, stage in stages.items():
        if stage.objective == "rl":
            raise InputError(
                f"{named} serves weights that were exported, and the stage '{name}' samples with "
                "those of its latest step, which change at every step: it would learn from a stale "
                "policy. Leave the engine out for training, and name it with --mode=evaluate."
            )
    if not any(stage.collect.filter for stage in stages.values()):
        raise InputError(
            f"{named} samples where a stage collects documents, and no stage of "
            f"config.recipe={settings.recipe} does. Leave it out, or name it with --mode=evaluate."
        )


@contextlib.contextmanager
def opened(
    settings: Settings,
    folder: Path,
    *,
    train: bool = False,
    writes: bool = True,
    stop: Callable[[], bool] = lambda: False,
    on_step: OnStep = lambda row: None,
) -> Iterator[Run]:
    """A run with its log, and with its compiled programs kept in the work directory.

    Args:
      train: whether it trains; then it is logged to Weights & Biases too, if the settings say so.
      writes: whether it may write in the work directory.
    """
    with _logged(settings, folder, train=train, writes=writes) as (log, watch):
        yield Run.start(settings, folder, log, watch, train=train, stop=stop, on_step=on_step)


@contextlib.contextmanager
def newest(
    settings: Settings, folder: Path, mode: str, *, trained: bool = True
) -> Iterator[tuple[Run, Stage, int, Params]]:
    """A run without problems; stage, step and params of its newest checkpoint.

    Args:
      mode: what needs it, for messages.
      trained: whether there must be a checkpoint; else the loaded weights will do, at step 0.
    Raises: InputError if there must be a checkpoint, and there is none.
    """
    if jax.process_count() > 1:
        raise InputError(
            f"--mode={mode} is for one process, and this run has {jax.process_count()}. Run it on "
            "one host: a checkpoint is restored onto the devices that are there."
        )
    settings_check.check_same_settings(folder, settings)
    if trained and not saved_params.begun(folder):
        raise InputError(
            f"{folder} has no checkpoint: nothing has been trained there yet. Train first (the "
            "same command without --mode), or name the --workdir of a run."
        )
    with _logged(settings, folder, writes=False) as (log, watch):
        run = Run(settings, folder, log, watch, Experiment.open(settings), None, [])
        yield run, *run.newest_params()


@contextlib.contextmanager
def _logged(
    settings: Settings, folder: Path, *, train: bool = False, writes: bool = True
) -> Iterator[tuple[RunLog, Watch]]:
    wandb = settings.logging.wandb if train else ""
    with RunLog(folder, primary=hosts.is_lead(), writes=writes, wandb=wandb) as log:
        compiles.keep_in(folder / "compile_cache" if settings.compile.cache else None)
        with Watch(after_warmup=settings.compile.after_warmup, say=log.say) as watch:
            yield log, watch
