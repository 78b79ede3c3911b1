"""--mode=scale: what more samples of the newest checkpoint buy (evaluation/scaling.py)."""

from pathlib import Path

from score_jax import jsonfiles
from score_jax import run as runs
from score_jax.config.settings import Settings
from score_jax.evaluation import scaling
from score_jax.report.comparison import figures
from score_jax.runtime import hosts
from score_jax.workdir import settings_check


def scale_latest(settings: Settings, folder: Path) -> None:
    """Samples the newest checkpoint (or the loaded weights, if there is none) many times.

    Prints a table; writes scaling/STAGE.json and a plot beside it.
    """
    settings_check.check_same_settings(folder, settings)
    with runs.opened(settings, folder) as run:
        stage, at_step, params = run.newest_params()
        name = stage.name if at_step or stage.index else "base"
        found = scaling.study(run.experiment, run.experiment.weights(params), run.test_problems)
        target = folder / "scaling" / f"{name}.json"
        if hosts.is_lead():
            jsonfiles.write(target, {"stage": name, "step": at_step, **found})
            figures.scaling([found], target.with_suffix(".png"))
        run.log.say(f"{name}, step {at_step}:\n{scaling.table(found)}\nWritten to {target}.")
