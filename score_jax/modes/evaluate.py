"""--mode=evaluate: the newest checkpoint on the test problems."""

from pathlib import Path

from score_jax import run as runs
from score_jax.config.settings import Settings
from score_jax.evaluation.evaluate import evaluate
from score_jax.report.run_page import summary
from score_jax.workdir import settings_check


def evaluate_latest(settings: Settings, folder: Path) -> None:
    """Evaluates the newest checkpoint (or the loaded weights, if there is none); prints a table.

    Writes evaluations/latest.json and transcripts/latest.jsonl, and latest.SET of further sets.
    """
    settings_check.check_same_settings(folder, settings)
    with runs.opened(settings, folder) as run:
        stage, at_step, params = run.newest_params()
        saved = at_step or stage.index
        name = f"{stage.name} at step {at_step}" if saved else "the loaded weights"
        weights, found = run.experiment.weights(params), {}
        for test, problems in {"": run.test_problems, **run.further_tests}.items():
            of_set = f"latest.{test}" if test else "latest"
            result = evaluate(run.experiment, weights, problems)
            run.log.write_transcripts(of_set, result.transcripts)
            run.log.write_evaluation(of_set, result.metrics)
            found[of_set] = result.metrics
        run.log.say(f"{name}:\n{summary.table({'stages': found})}")
