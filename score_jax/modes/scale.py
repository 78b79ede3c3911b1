"""--mode=scale: what more samples of the newest checkpoint buy (evaluation/scaling.py)."""

from collections.abc import Callable
from pathlib import Path

from score_jax import jsonfiles
from score_jax import run as runs
from score_jax.config.settings import Settings
from score_jax.evaluation import scaling
from score_jax.evaluation.evaluate import digest_of, kept_in
from score_jax.evaluation.queue import Countdown
from score_jax.report.comparison import figures
from score_jax.report.run_page import page
from score_jax.runtime import hosts
from score_jax.workdir import lock, settings_check


def scale_latest(
    settings: Settings, folder: Path, stop: Callable[[], bool] = lambda: False
) -> None:
    """Samples the newest checkpoint (or the loaded weights, if there is none) many times.

    Prints a table; writes scaling/STAGE.json and a plot beside it.
    Raises: Interrupted if `stop` said so; the same call later goes on.
    """
    settings_check.check_same_settings(folder, settings)
    with lock.held(folder), runs.opened(settings, folder, stop=hosts.agree(stop)) as run:
        stage, at_step, params = run.newest_params()
        name = stage.name if at_step or stage.index else "base"
        sampled_from = f"{name}, step {at_step}, {settings.scaling}"
        problems = run.test_problems
        kept = kept_in(
            folder, f"{name}.scaling", digest_of(run.experiment, problems), weights=sampled_from
        )
        found = scaling.study(
            run.experiment,
            run.experiment.decoding_weights(params),
            problems,
            kept=kept,
            stop=run.stop,
            countdown=Countdown(run.log.say, f"sampling {name}"),
        )
        target = folder / "scaling" / f"{name}.json"
        if hosts.is_lead():
            jsonfiles.write(target, {"stage": name, "step": at_step, **found})
            figures.scaling([found], target.with_suffix(".png"))
        kept.remove()
        run.log.say(f"{name}, step {at_step}:\n{scaling.table(found)}\nWritten to {target}.")
    if hosts.is_lead():
        page.renew(folder)
