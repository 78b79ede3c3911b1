"""What the stages of one run share, and what is read back from its work directory.

    with watch(settings, folder, log) as watching:
        run = Run.start(settings, folder, log, watching)

`position` says where a run stands, `params_at` what a checkpoint holds, `base_reference` the policy
that KL terms are against. With LoRA, params are adapters here; `Experiment.weights` puts them
beside the weights.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from score_jax import checkpoints as checkpoint
from score_jax.config.settings import Settings, StageSettings
from score_jax.data import problems as problem_sets
from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.learner.step import TrainState
from score_jax.problem import InputError, Problem
from score_jax.rewards import grader
from score_jax.runtime import compiles, hosts, sharding
from score_jax.runtime.compiles import Watch
from score_jax.runtime.watchdog import Watchdog
from score_jax.structs import Params
from score_jax.workdir import settings_check
from score_jax.workdir.runlog import RunLog


def watch(settings: Settings, folder: Path, log: RunLog) -> Watch:
    """Keeps compiled programs in the work directory, and watches for those that come late."""
    compiles.keep_in(folder / "compile_cache" if settings.compile.cache else None)
    return Watch(after_warmup=settings.compile.after_warmup, say=log.say)


@dataclasses.dataclass
class Run:
    """One run: its settings, its folder, and what was made from them once."""

    settings: Settings
    folder: Path
    log: RunLog
    watch: Watch
    experiment: Experiment
    training: problem_sets.Training | None  # None: nothing is trained
    test_problems: list[Problem]
    stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self.settings.watchdog)

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
    ) -> "Run":
        """Loads model and problems, and finds out where model-written programs can run.

        Args:
          train: whether problems to train on are needed.
        """
        experiment = Experiment.open(settings)
        where = settings.problems
        training = problem_sets.for_training(where, settings.seed) if train else None
        test_problems = problem_sets.for_evaluation(where, settings.seed)
        wanted = settings.evaluation.problems or len(test_problems)
        if wanted > len(test_problems):
            raise InputError(
                f"config.evaluation.problems={wanted} and the test split has "
                f"{len(test_problems)}. Set it to at most that, or 0 for all."
            )
        rewards = settings.rewards
        sandbox = grader.prepare(
            [*(training.problems if training else ()), *test_problems],
            attempts=settings.rollout.attempts,
            function=rewards.function,
            sandbox_kind=rewards.sandbox,
            allow_unsandboxed=rewards.allow_unsandboxed,
        )
        if sandbox:
            log.stamp(sandbox=sandbox)
            log.say(f"sandbox of model-written programs: {sandbox}")
        tested = test_problems[:wanted]
        return cls(settings, folder, log, watch, experiment, training, tested, stop)

    @contextlib.contextmanager
    def phase(self, name: str, *shape: Hashable) -> Iterator[None]:
        """A part of a step: it has a deadline, and compiles its programs once for a shape."""
        with self.watchdog.phase(name), self.watch.phase(name, *shape):
            yield

    def position(self) -> tuple[int, int]:
        """(index of the stage to go on with, its newest saved step); (0, 0) for a new run."""
        recipe = self.settings.recipe
        index, at_step = hosts.lead_says(lambda: settings_check.position(self.folder, recipe))
        return index, at_step

    def checkpoints(self, stage: str) -> checkpoint.StageCheckpoints:
        """A stage's checkpoints, to be used as a context manager."""
        return checkpoint.StageCheckpoints(
            self.folder / "checkpoints" / stage,
            keep=self.settings.checkpoint.keep,
            deadline=functools.partial(self.watchdog.phase, "save"),
        )

    def latest_step(self, stage: str) -> int | None:
        """The newest complete checkpoint of a stage, or None."""
        folder = self.folder / "checkpoints" / stage
        return hosts.lead_says(lambda: checkpoint.latest_step(folder))

    def best_step(self, stage: str) -> int | None:
        """The step of the best evaluation within a stage, or None."""
        return hosts.lead_says(lambda: settings_check.best_step(self.folder, stage))

    def evaluates(self, stage: StageSettings, number: int) -> bool:
        """Whether step `number` of a stage is evaluated; its last one is when the stage ends."""
        every = self.settings.evaluation.every
        return bool(every) and number % every == 0 and 0 < number < stage.steps

    def steps_before(self, index: int) -> int:
        """Steps of all stages before that one."""
        return sum(self.settings.stages[name].steps for name in self.settings.recipe[:index])

    def params_of(self, stage: str) -> Params:
        """The params that a finished stage ended with; "base" is the base model in any recipe."""
        if stage == "base" and self.settings.recipe[0] != "base":
            return self.experiment.initial_params()
        return self.params_after(stage)

    def base_reference(self, stage: str) -> Params | None:
        """The frozen base model at the start of `stage`; None while it is still being made."""
        if self.settings.recipe[0] != "base":
            return self.experiment.initial_reference()
        return None if stage == "base" else self.params_after("base")

    def params_after(self, stage: str) -> Params:
        """The params that a finished stage ended with."""
        steps = self.settings.stages[stage].steps
        if self.latest_step(stage) != steps:
            raise InputError(
                f"{self.folder / 'checkpoints' / stage} lacks the checkpoint of the stage's last "
                f"step {steps}, which later stages start from. Start again in another --workdir."
            )
        return self.params_at(stage, steps)

    def params_at(self, stage: str, at_step: int) -> Params:
        """The params of a checkpoint."""
        state = self.fresh_state(stage, self.experiment.initial_params())
        with self.checkpoints(stage) as saved:
            return saved.restore(at_step, state)[0].params

    def fresh_state(self, stage: str, params: Params) -> TrainState:
        """A stage's state at its first step, on the mesh."""
        settings = self.experiment.learner_settings(self.settings.stages[stage])
        return sharding.on_mesh(self.experiment.mesh, step.init(params, settings))
