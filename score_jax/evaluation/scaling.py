"""Inference-time scaling: 2K first attempts compared with K that are each corrected once.

For every budget of 2K = 2, 4, 8, … solutions per problem, sampled at `scaling.temperature`:

    parallel         2K first attempts, majority vote
    sequential       K first attempts, each followed by a second; vote over the K second ones
    sequential_all   the same samples; vote over all 2K answers

Generated tokens are counted too. A second attempt also reads the row before it; these tokens are
not generated and are counted separately (`read`). The paper does not say over which answers it
votes, so both are computed. Ties go to the answer that comes first.

Source: SCoRe, arXiv 2409.12917, section 6.2 and figure 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_jax import grading
from score_jax.evaluation import sampled
from score_jax.evaluation.evaluate import Queue
from score_jax.evaluation.metrics import mcnemar_p, paired_bootstrap_interval, wilson_interval
from score_jax.evaluation.queue import Countdown, Kept, of_every_sample
from score_jax.experiment import Experiment
from score_jax.grading import OwnRows
from score_jax.problem import InputError, Problem
from score_jax.rewards import selective
from score_jax.rewards.answers import voting
from score_jax.rl.policy import Policy
from score_jax.structs import Params, PromptBatch

WAYS = ("parallel", "sequential", "sequential_all")
_SCALING = 2**31 + 1  # folded into the seed's key; experiment.py folds in smaller numbers


@dataclasses.dataclass(frozen=True)
class Pool:
    """Samples of all problems: N problems, G samples, A attempts."""

    answers: list[list[list[str | None]]]  # [N][G][A], as stated
    solved_NGA: np.ndarray
    tokens_NGA: np.ndarray  # generated
    read_NG: np.ndarray  # tokens before the second attempt; 0 if there is none


def study(
    experiment: Experiment,
    params: Params,
    problems: Sequence[Problem],
    *,
    kept: Kept | None = None,
    stop: Callable[[], bool] = lambda: False,
    countdown: Countdown | None = None,
) -> dict[str, Any]:
    """Samples every problem and evaluates all budgets; kept, stop: as of `evaluate`.

    Raises: InputError for problems whose answers cannot be voted on.
    """
    settings = experiment.settings.scaling
    unknown = {p.grader for p in problems} - set(voting.GRADERS)
    terms = grading.terms_of(experiment.settings.rewards)
    if unknown or terms.solver not in terms.builtin:
        raise InputError(
            "--mode=scale votes over stated answers, but answers to these problems cannot be "
            f"compared (graders: {', '.join(sorted(unknown)) or 'a function of your own'}). It "
            f"needs problems graded by {' or '.join(voting.GRADERS)}."
        )
    problems = problems[: settings.problems or None]
    prompts = experiment.evaluation_prompts(problems)
    queue = functools.partial(
        of_every_sample,
        experiment,
        params,
        rows=settings.batch,
        kept=kept,
        stop=stop,
        countdown=countdown,
    )
    pairs = _sample(queue, experiment, prompts, attempts=2, stream=0)
    others = _sample(queue, experiment, prompts, attempts=1, stream=1)
    return {
        "n": len(problems),
        "temperature": settings.temperature,
        "budgets": budgets(pairs, others),
        "sampled": sampled.sampled_metrics(pairs.solved_NGA, seed=experiment.settings.seed),
    }


def budgets(pairs: Pool, others: Pool) -> list[dict[str, Any]]:
    """A row for every budget: accuracy of each way with its interval, tokens, and differences.

    pairs: samples of two attempts. others: samples of one; `parallel` votes over these and the
      first attempts of the pairs.
    """
    n, half = pairs.solved_NGA.shape[:2]
    rows = []
    for budget in sampled.doublings(2 * half)[1:]:
        k = budget // 2
        right: dict[str, np.ndarray] = {way: np.zeros(n, bool) for way in WAYS}
        for i in range(n):
            firsts = [g[0] for g in pairs.answers[i]] + [g[0] for g in others.answers[i]]
            solved = np.concatenate([pairs.solved_NGA[i, :, 0], others.solved_NGA[i, :, 0]])
            right["parallel"][i] = solved[sampled.majority(firsts[:budget])]
            revised = [g[1] for g in pairs.answers[i][:k]]
            right["sequential"][i] = pairs.solved_NGA[i, sampled.majority(revised), 1]
            # In the order of generation: both attempts of a sample, then the next sample.
            both = [answer for g in pairs.answers[i][:k] for answer in g]
            solved = pairs.solved_NGA[i, :k].reshape(-1)
            right["sequential_all"][i] = solved[sampled.majority(both)]
        row: dict[str, Any] = {"solutions": budget}
        for way in WAYS:
            hits = int(right[way].sum())
            row[way] = {"accuracy": hits / n, "interval": wilson_interval(hits, n)}
        first_NG = np.concatenate([pairs.tokens_NGA[..., 0], others.tokens_NGA[..., 0]], axis=1)
        row["parallel"]["tokens"] = float(first_NG[:, :budget].sum(axis=1).mean())
        written = float(pairs.tokens_NGA[:, :k].sum(axis=(1, 2)).mean())
        for way in WAYS[1:]:
            row[way] |= {"tokens": written, "read": float(pairs.read_NG[:, :k].sum(axis=1).mean())}
            gained = int((right[way] & ~right["parallel"]).sum())
            lost = int((~right[way] & right["parallel"]).sum())
            row[way]["above_parallel"] = {
                "difference": (gained - lost) / n,
                "interval": paired_bootstrap_interval(gained, lost, n),
                "mcnemar_p": mcnemar_p(gained, lost),
            }
        rows.append(row)
    return rows


def table(study: dict[str, Any]) -> str:
    """The budgets as rows of plain text, accuracies in per cent."""
    lines = [
        f"{'solutions':>9}  {'parallel':>8} {'tokens':>7}  {'K + K':>8} {'all 2K':>8} {'tokens':>7}"
        f" {'read':>7}  K + K above parallel"
    ]
    for row in study["budgets"]:
        parallel, sequential, all_ = (row[way] for way in WAYS)
        above = sequential["above_parallel"]
        low, high = (f"{100 * bound:+.1f}" for bound in above["interval"])
        lines.append(
            f"{row['solutions']:>9}  {100 * parallel['accuracy']:>8.1f} {parallel['tokens']:>7.0f}"
            f"  {100 * sequential['accuracy']:>8.1f} {100 * all_['accuracy']:>8.1f}"
            f" {sequential['tokens']:>7.0f} {sequential['read']:>7.0f}"
            f"  {100 * above['difference']:+.1f} [{low}, {high}], p={above['mcnemar_p']:.2g}"
        )
    lines.append(f"n={study['n']}, temperature {study['temperature']}; tokens are per problem.")
    return "\n".join(lines)


def _sample(
    queue: Queue, experiment: Experiment, prompts: PromptBatch, *, attempts: int, stream: int
) -> Pool:
    settings = experiment.settings.scaling
    samples = settings.solutions // 2
    rollout = experiment.episode_settings(
        policy=Policy(temperature=settings.temperature), attempts=attempts, samples=samples
    )
    key = jax.random.fold_in(
        jax.random.fold_in(jax.random.key(experiment.settings.seed), _SCALING), stream
    )
    make = functools.partial(_graded, experiment)
    found = queue(prompts, make, settings=rollout, key=key, part=f"{attempts} attempts")
    answers_B, solved_BA, tokens_BA, read_B = zip(*found, strict=True)
    shape = (len(prompts.tokens), samples, attempts)
    return Pool(
        [list(answers_B[i * samples : (i + 1) * samples]) for i in range(len(prompts.tokens))],
        np.array(solved_BA, bool).reshape(shape),
        np.array(tokens_BA).reshape(shape),
        np.array(read_B).reshape(shape[:2]),
    )


def _graded(experiment: Experiment, own: OwnRows) -> list[tuple[Any, ...]]:
    """Of each row: what its attempts state, whether that is right, tokens written, tokens read."""
    solved_NA = grading.grade(experiment, own).solved_NA
    texts, rows = own.texts, own.rows
    if experiment.marks:
        texts = [selective.answers(row, experiment.marks) for row in texts]
    attempts = rows.truncated.shape[1]
    tokens_NA = np.stack([(rows.attempt == a + 1).sum(axis=1) for a in range(attempts)], axis=1)
    # Before the second attempt, all of the row except that attempt is read.
    read_N = rows.length - tokens_NA[:, -1] if attempts > 1 else np.zeros(len(texts), int)
    answers = [
        [
            None if rows.truncated[n, a] else voting.stated(problem.grader, texts[n][a])
            for a in range(attempts)
        ]
        for n, problem in enumerate(own.problems)
    ]
    return list(zip(answers, solved_NA, tokens_NA, read_N, strict=True))
