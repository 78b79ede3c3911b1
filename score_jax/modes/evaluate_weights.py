"""What is done with a trained model: evaluate it, scale its samples, export it, ask it.

Each takes the newest checkpoint of a work directory and returns the exit status.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from score_jax import jsonfiles
from score_jax.config.settings import Settings
from score_jax.evaluation import scaling
from score_jax.evaluation.evaluate import evaluate
from score_jax.experiment import Experiment
from score_jax.modes import ask, export
from score_jax.problem import InputError
from score_jax.report.comparison import figures
from score_jax.report.run_page import summary
from score_jax.run import Run, watch
from score_jax.runtime import hosts
from score_jax.workdir import settings_check
from score_jax.workdir.runlog import RunLog

DONE = 0


def evaluate_latest(settings: Settings, folder: str) -> int:
    """Evaluates the newest checkpoint (or the loaded weights, if there is none) and prints a table.

    Writes evaluations/latest.json and transcripts/latest.jsonl.
    """
    path = Path(folder)
    settings_check.check_same_settings(path, settings)
    with RunLog(path, primary=hosts.is_lead()) as log, watch(settings, path, log) as watching:
        run = Run.start(settings, path, log, watching, train=False)
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


def scale_latest(settings: Settings, folder: str) -> int:
    """Samples the newest checkpoint (or the loaded weights) many times; see scaling.py.

    Prints a table; writes scaling/STAGE.json and a plot beside it.
    """
    path = Path(folder)
    settings_check.check_same_settings(path, settings)
    with RunLog(path, primary=hosts.is_lead()) as log, watch(settings, path, log) as watching:
        run = Run.start(settings, path, log, watching, train=False)
        index, at_step = run.position()
        name, params = "base", run.experiment.initial_params()
        if at_step:
            name = settings.recipe[index]
            params = run.params_at(name, at_step)
        found = scaling.study(run.experiment, run.experiment.weights(params), run.test_problems)
        target = path / "scaling" / f"{name}.json"
        if hosts.is_lead():
            jsonfiles.write(target, {"stage": name, "step": at_step, **found})
            figures.scaling([found], target.with_suffix(".png"))
        log.say(f"{name}, step {at_step}:\n{scaling.table(found)}\nWritten to {target}.")
    return DONE


def export_latest(
    settings: Settings, folder: str, to: str = "", *, dtype: str = "", adapters: bool = False
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
    with _newest(settings, folder) as (run, stage, at_step):
        params = run.params_at(stage, at_step)
        target = Path(to) if to else run.folder / "export"
        if adapters:
            said = export.write_adapters(run.experiment, params, target)
        else:
            said = export.write(run.experiment, params, target, dtype=dtype)
        run.log.say(f"{stage} at step {at_step}: {said}")
    return DONE


def ask_latest(settings: Settings, folder: str, question: str = "") -> int:
    """Puts a question, or those typed, to the newest checkpoint; prints all attempts.

    Raises: InputError if there is no checkpoint, or the question cannot be asked.
    """
    with _newest(settings, folder) as (run, stage, at_step):
        run.log.say(f"{settings.model.source} after {stage}, step {at_step}")
        weights = run.experiment.weights(run.params_at(stage, at_step))
        ask.at_terminal(run.experiment, weights, question)
    return DONE


@contextlib.contextmanager
def _newest(settings: Settings, folder: str) -> Iterator[tuple[Run, str, int]]:
    """A run without problems, and the stage and step of its newest checkpoint.

    Raises: InputError if there is none.
    """
    path = Path(folder)
    if hosts.count() > 1:
        raise InputError(
            f"--mode=export and --mode=try are for one process, and here are {hosts.count()}. Run "
            "it on one host: a checkpoint is restored onto the devices that are there."
        )
    settings_check.check_same_settings(path, settings)
    if not any(path.glob("checkpoints/*/*")):
        raise InputError(
            f"{path} has no checkpoint: nothing has been trained there yet. Train first (the "
            "same command without --mode), or name the --workdir of a run."
        )
    with RunLog(path) as log, watch(settings, path, log) as watching:
        run = Run(settings, path, log, watching, Experiment.open(settings), None, [])
        index, at_step = run.position()
        yield run, settings.recipe[index], at_step
