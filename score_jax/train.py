"""The training loop: every stage in order, evaluation before the first and after each.

Running the same command again resumes. Where a run goes on, first match:
  1. the newest checkpoint of the latest stage that has one (DIR/checkpoints/STAGE/STEP);
  2. the beginning.
A stage starts from the params its predecessor ended with, and with a fresh optimizer. The
reference of all KL terms is the base model: what the stage named "base" made, or else the loaded
weights. With LoRA, params are adapters here; `Experiment.weights` puts them beside the weights.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import ask, compiles, config, export, sharding
from score_jax.compiles import Watch
from score_jax.config import Settings, StageSettings
from score_jax.data import documents, pipeline
from score_jax.data import problems as problem_sets
from score_jax.evaluate import Interrupted, evaluate, zero_truncated
from score_jax.experiment import Experiment, changed
from score_jax.learner import checkpoint, step
from score_jax.learner.step import TrainState
from score_jax.problem import InputError, Problem
from score_jax.report import page, plots, summary
from score_jax.rewards import grader
from score_jax.rollout import episode
from score_jax.runlog import RunLog, package_versions
from score_jax.structs import Batch, Episode, Params, PromptBatch

DONE, STOPPED = 0, 75  # exit statuses; 75: saved after a signal, run the same command again


def train(settings: Settings, workdir: str, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Runs the recipe to its end, or until `stop` says so, and returns the exit status.

    Raises: InputError for settings, files or a work directory that do not fit.
    """
    folder = Path(workdir)
    _check_same_settings(folder, settings)
    stages = list(settings.recipe)
    names = stages if "base" in stages else ["base", *stages]
    if _is_complete(folder, stages, names, settings):
        print(summary.table(json.loads((folder / "report" / "summary.json").read_text())))
        print(f"{folder}: all stages are done; nothing to do.")
        return DONE
    wandb = settings.logging.wandb
    with RunLog(folder, wandb=wandb) as log, _watch(settings, folder, log) as watch:
        run = _Run.start(settings, folder, log, stop, watch)
        log.write_config(config.to_dict(settings), device=_device())
        at, at_step = run.position()
        where = f"goes on at {stages[at]}, step {at_step}" if at_step else "begins"
        log.say(f"{folder}: {' → '.join(stages)} on {_device()}; {where}, compiling first …")
        try:
            run.all_stages()
        except Interrupted:
            log.say(f"stopped by a signal and saved in {folder}; the same command goes on.")
            return STOPPED
        made = {"compiled": watch.misses, "from_cache": watch.hits, "late": len(watch.late)}
        result = summary.write(folder, names, log.wall_sec, package_versions(), made)
        log.say(summary.table(result))
        run.report(page.write, plots.write)
        log.say(f"The run page: {folder / 'report' / 'index.html'}")
    return DONE


def evaluate_latest(settings: Settings, workdir: str) -> int:
    """Evaluates the newest checkpoint (or the loaded weights, if there is none) and prints a table.

    Writes evaluations/latest.json and transcripts/latest.jsonl.
    """
    folder = Path(workdir)
    _check_same_settings(folder, settings)
    with RunLog(folder) as log, _watch(settings, folder, log) as watch:
        run = _Run.start(settings, folder, log, lambda: False, watch, train=False)
        index, at_step = run.position()
        params = run.experiment.initial_params()
        name = "the loaded weights"
        if at_step:
            name = f"{settings.recipe[index]} at step {at_step}"
            params = run.params_at(settings.recipe[index], at_step)
        result = evaluate(run.experiment, run.experiment.weights(params), run.test_problems)
        log.write_transcripts("latest", result.transcripts)
        log.write_evaluation("latest", result.metrics)
        log.say(f"{name}:\n{summary.table({'stages': {'latest': result.metrics}})}")
    return DONE


def export_latest(
    settings: Settings, workdir: str, to: str = "", *, dtype: str = "", adapters: bool = False
) -> int:
    """Writes the newest checkpoint as a Hugging Face folder; by default DIR/export.

    adapters: those of a run with LoRA alone, in PEFT's layout; they are merged otherwise.
    Raises: InputError if nothing has been trained in the work directory yet.
    """
    if adapters and not settings.model.lora.rank:
        raise InputError(
            "--export_adapters writes what a run with LoRA trains, and config.model.lora.rank is "
            "0: all weights are trained. Leave it out."
        )
    with _newest(settings, workdir) as (run, stage, at_step):
        params = run.params_at(stage, at_step)
        target = Path(to) if to else run.folder / "export"
        if adapters:
            said = export.write_adapters(run.experiment, params, target)
        else:
            said = export.write(run.experiment, params, target, dtype=dtype)
        run.log.say(f"{stage} at step {at_step}: {said}")
    return DONE


def ask_latest(settings: Settings, workdir: str, question: str = "") -> int:
    """Puts a question, or those typed, to the newest checkpoint; prints all attempts.

    Raises: InputError if there is no checkpoint, or the question cannot be asked.
    """
    with _newest(settings, workdir) as (run, stage, at_step):
        run.log.say(f"{settings.model.source} after {stage}, step {at_step}")
        weights = run.experiment.weights(run.params_at(stage, at_step))
        ask.at_terminal(run.experiment, weights, question)
    return DONE


@contextlib.contextmanager
def _newest(settings: Settings, workdir: str) -> Iterator[tuple["_Run", str, int]]:
    """A run without problems, and the stage and step of its newest checkpoint.

    Raises: InputError if there is none.
    """
    folder = Path(workdir)
    _check_same_settings(folder, settings)
    if not any(folder.glob("checkpoints/*/*")):
        raise InputError(
            f"{folder} has no checkpoint: nothing has been trained there yet. Train first (the "
            "same command without --mode), or name the --workdir of a run."
        )
    with RunLog(folder) as log, _watch(settings, folder, log) as watch:
        run = _Run(settings, folder, log, lambda: False, watch, Experiment.open(settings), None, [])
        index, at_step = run.position()
        yield run, settings.recipe[index], at_step


def _watch(settings: Settings, folder: Path, log: RunLog) -> Watch:
    """Keeps compiled programs in the work directory, and watches for those that come late."""
    compiles.keep_in(folder / "compile_cache" if settings.compile.cache else None)
    return Watch(fail=settings.compile.after_warmup == "fail", say=log.say)


@dataclasses.dataclass
class _Run:
    """What the stages of one run share."""

    settings: Settings
    folder: Path
    log: RunLog
    stop: Callable[[], bool]
    watch: Watch
    experiment: Experiment
    training: problem_sets.Training | None  # None: nothing is trained
    test_problems: list[Problem]

    @classmethod
    def start(
        cls, settings: Settings, folder: Path, log: RunLog, stop, watch: Watch, train=True
    ) -> "_Run":
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
        return cls(settings, folder, log, stop, watch, experiment, training, tested)

    def all_stages(self) -> None:
        """Every stage from where the run stands; Interrupted after saving if `stop` said so."""
        recipe = self.settings.recipe
        first, at_step = self.position()
        self.log.truncate_after(recipe, recipe[first], at_step)
        params = self._params_after(recipe[first - 1]) if first else None
        reference = self._reference(recipe[first])
        if params is None:
            params = self.experiment.initial_params()
            if recipe[0] != "base":
                self._evaluate("base", params, reference)
        for i, name in enumerate(recipe[first:], start=first):
            params = self._stage(i, name, params, reference)
            done = sum(self.settings.stages[n].steps for n in recipe[: i + 1])
            self._evaluate(name, params, reference, done)
            if name == "base":
                reference = jax.tree.map(jax.numpy.copy, params)

    def position(self) -> tuple[int, int]:
        """(index of the stage to go on with, its newest saved step); (0, 0) for a new run."""
        recipe = self.settings.recipe
        for i in reversed(range(len(recipe))):
            saved = checkpoint.latest_step(self._checkpoints(recipe[i]))
            if saved is not None:
                return i, saved
        return 0, 0

    def _checkpoints(self, stage: str) -> Path:
        return self.folder / "checkpoints" / stage

    def _reference(self, stage: str) -> Params | None:
        """The frozen base model at the start of `stage`; None while it is still being made."""
        recipe = self.settings.recipe
        if recipe[0] != "base":
            return self.experiment.initial_reference()
        return None if stage == "base" else self._params_after("base")

    def _params_after(self, stage: str) -> Params:
        """The params that a finished stage ended with."""
        folder = self._checkpoints(stage)
        steps = self.settings.stages[stage].steps
        if checkpoint.latest_step(folder) != steps:
            raise InputError(
                f"{folder} lacks the checkpoint of the stage's last step {steps}, which later "
                "stages start from. Start again in another --workdir."
            )
        return self.params_at(stage, steps)

    def params_at(self, stage: str, at_step: int) -> Params:
        """The params of a checkpoint."""
        state = self._fresh_state(stage, self.experiment.initial_params())
        folder = self._checkpoints(stage)
        with checkpoint.StageCheckpoints(folder, keep=self.settings.checkpoint.keep) as saved:
            return saved.restore(at_step, state)[0].params

    def _fresh_state(self, name: str, params: Params) -> TrainState:
        settings = self.experiment.learner_settings(self.settings.stages[name])
        return sharding.on_mesh(self.experiment.mesh, step.init(params, settings))

    def _stage(self, index: int, name: str, params: Params, reference: Params | None) -> Params:
        """Trains one stage from its newest checkpoint, or from `params`, to its end."""
        stage = self.settings.stages[name]
        recipe = self.settings.recipe
        # A copy: the state is donated to every update, and `params` may be the reference too.
        state = self._fresh_state(name, jax.tree.map(jax.numpy.copy, params))
        # Documents were not sampled: they have no behaviour log-probs to compare with.
        against = reference if stage.objective == "rl" else None
        source: Any = (_Episodes if stage.objective == "rl" else _Documents)(self, index)
        folder = self._checkpoints(name)
        with checkpoint.StageCheckpoints(folder, keep=self.settings.checkpoint.keep) as saved:
            done = checkpoint.latest_step(folder) or 0
            if done:
                state, extra = saved.restore(done, state)
                source.set_state(extra["data"])
            before = sum(self.settings.stages[n].steps for n in recipe[:index])
            self.log.start_stage(name, steps=stage.steps, steps_before=before)
            source.warm_up(state, against, stage)
            pending: _Pending | None = None
            for number in range(done + 1, stage.steps + 1):
                dispatched = source.dispatch(state.params, number)
                if pending:
                    # Step n-1's metrics, fetched when step n's rollout is already queued.
                    pending.log(self.log)
                batch, measured = source.collect(dispatched)
                started = time.perf_counter()
                with self.watch.phase("update", name, batch.tokens.shape[1]):
                    state, metrics = step.train_step(
                        state, against, batch, stage=stage, base=self.experiment.base
                    )
                pending = _Pending(number, metrics, measured, started, batch.tokens.size)
                stopping = self.stop()
                last = number == stage.steps
                saving = stopping or last or number % self.settings.checkpoint.every == 0
                every = self.settings.evaluation.every
                evaluating = bool(every) and number % every == 0 and not last
                if saving or evaluating:
                    # A saved step is a logged step, and an evaluation's time is not an update's.
                    pending.log(self.log)
                    pending = None
                if saving:
                    saved.save(state, {"data": source.get_state()})
                if stopping and not last:
                    raise Interrupted
                if evaluating:
                    self._evaluate(f"{name}-{number}", state.params, reference, before + number)
            if not stage.steps:
                saved.save(state, {"data": source.get_state()})
        return state.params

    def _evaluate(
        self, name: str, params: Params, reference: Params | None, steps_before: int = 0
    ) -> None:
        """Evaluates once; what an earlier run found stays."""
        if (self.folder / "evaluations" / f"{name}.json").exists():
            return
        if self.stop():
            raise Interrupted
        with self.watch.phase("evaluation"):
            weights = self.experiment.weights(params)
            result = evaluate(
                self.experiment,
                weights,
                self.test_problems,
                reference=None if reference is None else self.experiment.weights(reference),
                stop=self.stop,
            )
        self.log.write_transcripts(name, result.transcripts)
        self.log.write_evaluation(name, result.metrics)
        self.log.show_evaluation(steps_before, result.metrics, result.transcripts)
        shown = [
            f"{key.replace('accuracy_', '')} {value:.3f}"
            for key, value in result.metrics.items()
            if key.startswith(("accuracy", "delta"))
        ]
        self.log.say(f"evaluated {name}: {', '.join(shown)} (n={result.metrics['n']})")
        self.report(page.write)

    def report(self, *parts: Callable[[Path], Any]) -> None:
        """Writes parts of the report anew. Whatever may go wrong there, the run goes on."""
        for write in parts:
            try:
                write(self.folder)
            except Exception as error:
                self.log.say(f"{write.__module__} failed: {type(error).__name__}: {error}")


@dataclasses.dataclass
class _Pending:
    """A dispatched update whose metrics are still on the device."""

    number: int
    metrics: dict[str, jax.Array]
    measured: dict[str, float]  # what the host measured while making the batch
    started: float
    tokens: int

    def log(self, log: RunLog) -> None:
        """Waits for the update, checks it and logs it."""
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
        log.log(self.number, {**metrics, **self.measured, **rate})


class _Episodes:
    """Batches of an RL stage: problems -> rollout -> grade."""

    def __init__(self, run: _Run, index: int):
        s = run.settings
        self._run = run
        stage = s.stages[s.recipe[index]]
        self._rollout = run.experiment.episode_settings(attempts=stage.attempts)
        template = run.experiment.template
        assert run.training
        earlier = [s.stages[name] for name in s.recipe[:index]]
        self._prompts = pipeline.batches(
            run.training.problems,
            template.first_turn,
            batch=s.rollout.problems_per_step,
            max_prompt_tokens=s.rollout.max_prompt_tokens,
            pad_id=template.tokenizer.pad_id,
            seed=s.seed + 1000 * index,  # another order in every stage
            bucket_sizes=s.rollout.prompt_buckets,
            parts=run.training.parts,
            curriculum_steps=s.problems.curriculum_steps,
            steps_before=sum(stage.steps for stage in earlier if stage.objective == "rl"),
        )
        self._key = jax.random.fold_in(jax.random.key(s.seed), 1 + index)

    def get_state(self) -> dict[str, Any]:
        """The position in the data, JSON-able."""
        return self._prompts.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a saved position."""
        self._prompts.set_state(state)

    def dispatch(self, params: Params, number: int) -> tuple[Episode, PromptBatch]:
        """Queues the rollout of step `number` on the device."""
        prompts = next(self._prompts)
        return self._sample(params, prompts, number), prompts

    def warm_up(self, state: TrainState, reference: Params | None, stage: StageSettings) -> None:
        """Compiles rollout and update for every width that a batch may have, if there are several.

        With one width the first step compiles what all steps need.
        """
        s = self._run.settings
        if not s.rollout.prompt_buckets:
            return
        for width in sorted({*s.rollout.prompt_buckets, s.rollout.max_prompt_tokens}):
            prompts = PromptBatch(
                tokens=np.zeros((s.rollout.problems_per_step, width), np.int32),
                length=np.ones(s.rollout.problems_per_step, np.int32),
                index=np.zeros(s.rollout.problems_per_step, np.int32),
                problems=(),
            )
            sampled = self._sample(state.params, prompts, 0, tokens=1)
            batch = self._batch(sampled, np.zeros(sampled.truncated.shape, np.float32))
            base = self._run.experiment.base
            step.lower(state, reference, batch, stage=stage, base=base).compile()

    def _sample(
        self, params: Params, prompts: PromptBatch, number: int, tokens: int = 0
    ) -> Episode:
        """The rollout of one step; with `tokens`, of attempts that long at most."""
        limit_QGA = None
        if tokens:
            shape = (len(prompts.tokens), self._rollout.samples, self._rollout.attempts)
            limit_QGA = np.full(shape, tokens, np.int32)
        with self._run.watch.phase("rollout", self._rollout, prompts.tokens.shape[1]):
            return episode.run(
                self._run.experiment.weights(params),
                prompts,
                jax.random.fold_in(self._key, number),
                settings=self._rollout,
                mesh=self._run.experiment.mesh,
                limit_QGA=limit_QGA,
            )

    def _batch(self, sampled: Episode, reward_BA: np.ndarray) -> Batch:
        mesh = self._run.experiment.mesh
        return Batch(
            tokens=sampled.tokens,
            attempt=sampled.attempt,
            logp=sampled.logp,
            length=sampled.length,
            reward=jax.device_put(reward_BA, sharding.rows(mesh)),
            truncated=sampled.truncated,
        )

    def collect(self, dispatched: tuple[Episode, PromptBatch]) -> tuple[Batch, dict[str, float]]:
        """Waits for the rollout and grades it. Call it when the device has nothing older to do."""
        sampled, prompts = dispatched
        experiment = self._run.experiment
        started = time.perf_counter()
        episode.check(sampled)
        texts = experiment.texts(sampled)
        decoded = time.perf_counter()
        samples = self._rollout.samples
        problems = [problem for problem in prompts.problems for _ in range(samples)]
        limits = self._run.settings.rewards
        reward_BA, reasons = grader.grade(
            problems,
            texts,
            deadline_sec=limits.timeout_sec,
            program_sec=limits.program_timeout_sec,
            function=limits.function,
        )
        truncated_BA = np.asarray(sampled.truncated)
        reward_BA, reasons = zero_truncated(reward_BA, reasons, truncated_BA)
        graded = time.perf_counter()
        generated = int(np.sum(np.asarray(sampled.attempt) > 0))
        measured = {
            "changed": float(np.mean(changed(texts))),
            "prompts_left_out": self._prompts.dropped,  # of the set: too long
            "sec/rollout": decoded - started,
            "sec/grade": graded - decoded,
            "tokens_per_sec/rollout": generated / (decoded - started),
        }
        return self._batch(sampled, reward_BA), measured


class _Documents:
    """Batches of an SFT stage: the problem set's own documents, learned as they stand."""

    def __init__(self, run: _Run, index: int):
        s = run.settings
        stage = s.stages[s.recipe[index]]
        rows = stage.documents_per_step
        self._rows = rows or s.rollout.problems_per_step * s.rollout.samples_per_problem
        self._run = run

    def get_state(self) -> dict[str, Any]:
        """Nothing: a step's documents depend on seed and step alone."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def warm_up(self, state: TrainState, reference: Params | None, stage: StageSettings) -> None:
        """Nothing: all batches have one shape."""

    def dispatch(self, params: Params, number: int) -> int:
        """Nothing to sample."""
        del params
        return number

    def collect(self, number: int) -> tuple[Batch, dict[str, float]]:
        """The documents of step `number`."""
        s, experiment = self._run.settings, self._run.experiment
        batch = documents.batch(
            s.problems.name,
            experiment.template,
            seed=s.seed,
            step=number,
            rows=self._rows,
            columns=experiment.episode_settings().row_tokens(s.rollout.max_prompt_tokens),
            max_attempt_tokens=s.rollout.max_attempt_tokens,
        )
        return jax.device_put(batch, sharding.rows(experiment.mesh)), {}


# Settings that may differ when a run goes on: they change speed, output or memory, not the result.
_FREE = (
    "evaluation",
    "problems.test",
    "checkpoint",
    "compile",
    "logging",
    "mesh",
    "memory",
    "rollout.slots",
    "rollout.turn_rows",
    "rollout.shrink",
    "rewards.sandbox",
    "rewards.allow_unsandboxed",
)


def _check_same_settings(folder: Path, settings: Settings) -> None:
    """A work directory belongs to one set of settings. Raises: InputError naming what differs."""
    path = folder / "config.json"
    if not path.exists():
        if any(folder.glob("checkpoints/*/*")):
            raise InputError(
                f"{folder} has checkpoints and no config.json, so it cannot be told which settings "
                "they belong to. Choose another --workdir."
            )
        return
    try:
        saved = _flat(json.loads(path.read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); it says which settings the checkpoints beside it "
            "belong to. Choose another --workdir."
        ) from error
    ours = _flat(config.to_dict(settings))
    differing = [
        f"{key}: {saved.get(key, 'absent')} there, {ours.get(key, 'absent')} now"
        for key in sorted(saved.keys() | ours.keys())
        if saved.get(key) != ours.get(key) and not key.startswith(_FREE)
    ]
    if differing:
        raise InputError(
            f"{folder} belongs to a run with other settings; going on would mix the two. "
            f"Use the same settings or another --workdir. Differing: {'; '.join(differing[:8])}"
            + (f"; and {len(differing) - 8} more." if len(differing) > 8 else ".")
        )


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{path}.{key}" if path else key)
    return flat


def _is_complete(folder: Path, stages: list[str], names: list[str], settings: Settings) -> bool:
    last = settings.stages[stages[-1]].steps
    return (
        (folder / "report" / "summary.json").exists()
        and all((folder / "evaluations" / f"{name}.json").exists() for name in names)
        and checkpoint.latest_step(folder / "checkpoints" / stages[-1]) == last
    )


def _device() -> str:
    device = jax.devices()[0]
    return f"{jax.device_count()} x {device.device_kind} ({device.platform}, {os.cpu_count()} CPUs)"
