"""--mode=evaluate: the newest checkpoint on the test problems, or the weights as they are loaded.

With a checkpoint: evaluations/latest.json and transcripts/latest.jsonl, and latest.SET of further
sets. Before any training the work directory also gets what a run page needs (config.json, the page
and summary.json); the evaluation is then that of `base`, which a training that follows would make
first, and takes over. If the recipe trains its base model, the loaded weights are not that: they
stay `latest`, on the page too.
"""

from collections.abc import Callable
from pathlib import Path

from score_jax import jsonfiles
from score_jax import run as runs
from score_jax.config.settings import Settings
from score_jax.evaluation.evaluate import digest_of, evaluate, kept_in
from score_jax.evaluation.queue import Countdown, Kept
from score_jax.report.run_page import page, plots, summary, transcripts
from score_jax.rollout import remote
from score_jax.runtime import hosts
from score_jax.workdir import evaluations, lock, settings_check
from score_jax.workdir.runlog import package_versions

LATEST = transcripts.LATEST


def evaluate_latest(
    settings: Settings, folder: Path, stop: Callable[[], bool] = lambda: False
) -> None:
    """Evaluates the newest checkpoint (or the loaded weights, if there is none); prints a table.

    In a folder that cannot be written the table is all.
    Raises: Interrupted if `stop` said so; the same call later goes on.
    """
    settings_check.check_same_settings(folder, settings)
    engine = remote.connected(settings)
    with lock.held(folder, read_only=True) as writes:
        if writes:
            hosts.lead_says(lambda: _prepare(folder, settings))
        with runs.opened(settings, folder, stop=hosts.agree(stop), writes=writes) as run:
            _evaluate_latest(run, engine, writes=writes)
    if writes and hosts.is_lead():
        page.renew(folder)


def _prepare(folder: Path, settings: Settings) -> None:
    settings_check.start_over(folder, settings)
    for line in evaluations.set_aside_damaged(folder):
        print(line)


def _evaluate_latest(run: runs.Run, engine: remote.Remote | None, *, writes: bool) -> None:
    stage, at_step, params = run.newest_params()
    trained = run.trained_so_far(stage, at_step)
    if engine:
        whose = trained or run.settings.model.source
        engine.check_weights(run.experiment.merged(params), whose)
        run.log.say(f"sampled by the engine at {engine.address}, which has the same weights")
    own_base = run.settings.recipe[0] == "base"
    names = [LATEST] if trained or own_base else [LATEST, "base"]
    weights, found = run.experiment.decoding_weights(params), {}
    # The loaded weights are the reference too: no second copy of them is made.
    reference = None if trained or own_base else weights
    for test, problems in {"": run.test_problems, **run.further_tests}.items():
        of_sets = [f"{name}.{test}" if test else name for name in names]
        kept, digest = Kept(None), digest_of(run.experiment, problems)
        if writes:
            kept = kept_in(run.folder, of_sets[0], digest, weights=trained)
        run.log.doing(f"evaluating {of_sets[-1]}")
        result = evaluate(
            run.experiment,
            weights,
            problems,
            reference=reference,
            engine=engine,
            stop=run.stop,
            kept=kept,
            countdown=Countdown(run.log.say, f"evaluating {of_sets[-1]}"),
            prompt_tokens=run.test_prompt_tokens,
        )
        for of_set in of_sets:
            run.log.write_transcripts(of_set, result.transcripts)
            run.log.write_evaluation(of_set, result.metrics, digest)
        kept.remove()
        found[of_sets[0]] = result.metrics
    run.log.say(f"{trained or 'the loaded weights'}:\n{summary.table({'stages': found})}")
    if not writes:
        run.log.say(f"{run.folder} cannot be written, so this is only shown.")
    elif not trained:
        run.log.write_config(jsonfiles.plain(run.settings), device=hosts.devices())
        if hosts.is_lead():
            tests, wall_sec = list(run.further_tests), run.log.wall_sec
            summary.write(run.folder, [names[-1]], wall_sec, package_versions(), tests=tests)
        run.report(plots.write)
        run.log.say(f"The run page: {run.folder / 'report' / 'index.html'}")
