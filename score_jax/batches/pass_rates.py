"""Which problems are worth sampling: those that the base model solves sometimes, but not always.

    wanted(run)    bool for each training problem, by config.problems.pass_rate; None: all

A problem whose samples all earn the same has no advantage to learn from. The rate of each problem
is measured once, with first attempts by the base model, and kept in DIR/collected/pass_rates.jsonl.
Until all are there, those that have ended are kept in pass_rates.part.jsonl: a run that is stopped
samples only the others, and their draws are addressed, so the rates do not depend on stops.
"""

import jax
import numpy as np

from score_jax import grading, jsonfiles
from score_jax.data import pipeline
from score_jax.evaluation import queue
from score_jax.evaluation.queue import Countdown, Kept, of_every_sample
from score_jax.run import Run
from score_jax.runtime import hosts

_SAMPLES = 2**31 + 5  # folded into the seed's key; evaluation and scaling fold in others


def wanted(run: Run) -> np.ndarray | None:
    """Which problems have a pass rate in the range; measures the rates if their file is not there.

    Those with too long a prompt are not measured, and not wanted.
    Raises: Interrupted if the run was asked to stop.
    """
    if not run.settings.problems.pass_rate:
        return None
    low, high = run.settings.problems.pass_rate
    path = run.folder / "collected" / "pass_rates.jsonl"
    rows = queue.whole(path, run.log.say)
    if rows is None:
        _measure(run)
        rows = queue.whole(path, run.log.say) or []
    assert run.training
    rate_of = {row["problem"]: row["solved"] / row["samples"] for row in rows}
    rate_N = np.array([rate_of.get(problem.id, np.nan) for problem in run.training.problems])
    inside_N = (low <= rate_N) & (rate_N <= high)
    if "pass rates" not in run.warned:
        run.warned.add("pass rates")
        run.log.say(
            f"pass rates: the base model solves {inside_N.sum()} of {len(rows)} problems in "
            f"{low:g} to {high:g} of {rows[0]['samples']} first attempts; the others are left out "
            f"({1 - inside_N.sum() / len(rows):.1%}): {(rate_N < low).sum()} below, "
            f"{(rate_N > high).sum()} above."
        )
    return inside_N


def _measure(run: Run) -> None:
    s, experiment, training = run.settings, run.experiment, run.training
    assert training and training.prompts
    samples = s.problems.pass_rate_samples or s.rollout.samples_per_problem
    prompts = training.prompts
    position_Q = pipeline.usable(prompts, 1, s.rollout.max_prompt_tokens)
    measured = pipeline.pack(
        prompts,
        position_Q,
        int(prompts.length[position_Q].max()),
        experiment.template.tokenizer.pad_id,
    )
    folder = run.folder / "collected"
    of = {
        "samples": samples,
        "problems": pipeline.digest(prompts, position_Q),
        "reward_code": grading.reward_code(s),
    }
    kept = Kept(folder / "pass_rates.part.jsonl", of)
    run.log.say(f"pass rates: the base model tries {len(position_Q)} problems {samples} times.")
    with run.phase("evaluation", "pass rates"):
        solved = of_every_sample(
            experiment,
            experiment.weights(run.params_of("base")),
            measured,
            lambda own: grading.grade(experiment, own).solved_NA[:, 0].tolist(),
            settings=experiment.episode_settings(samples=samples, attempts=1),
            key=jax.random.fold_in(jax.random.key(s.seed), _SAMPLES),
            rows=s.rollout.rows,
            part="pass rates",
            kept=kept,
            together=s.rollout.rows if grading.in_batches(experiment) else 1,
            stop=run.stop,
            countdown=Countdown(run.log.say, "pass rates", goes_on=run.watchdog.goes_on),
        )
    solved_Q = np.array(solved, bool).reshape(len(position_Q), samples).sum(axis=1)
    if hosts.is_lead():
        rows = (
            {"problem": problem.id, "solved": int(count), "samples": samples}
            for problem, count in zip(measured.problems, solved_Q, strict=True)
        )
        jsonfiles.write_counted(folder / "pass_rates.jsonl", rows)
    kept.remove()
