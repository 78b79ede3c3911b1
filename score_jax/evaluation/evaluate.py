"""Greedy evaluation: all attempts at every held-out problem -> metrics and transcripts.

With `evaluation.samples` every problem is also sampled, for averages and pass@k. With the protocol
"self_refine" the model first criticises its attempt in a turn of its own and then rewrites it,
without the run's instruction. The critique is not graded.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_jax import grading
from score_jax.evaluation import breakdown, shading
from score_jax.evaluation.edits import edit_ratio
from score_jax.evaluation.metrics import evaluation_metrics
from score_jax.evaluation.sampled import sampled_metrics
from score_jax.experiment import GREEDY, Experiment
from score_jax.grading import changed
from score_jax.problem import Problem
from score_jax.rewards import selective
from score_jax.rl.policy import Policy
from score_jax.rollout import contexts, episode
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import hosts
from score_jax.structs import Episode, Params, PromptBatch
from score_jax.text.prompts import SELF_REFINE

_SAMPLES = 2**31 + 2  # folded into the seed's key; training and scaling fold in others


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, Any]  # of metrics.evaluation_metrics
    transcripts: list[dict[str, Any]]  # one per problem: the lines of transcripts/*.jsonl


def evaluate(
    experiment: Experiment,
    params: Params,
    problems: Sequence[Problem],
    *,
    reference: Params | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Decodes all attempts greedily and grades them.

    Args:
      reference: weights of the base model, for the shading of the first transcripts (shading.py).
      stop: asked between batches; true ends the evaluation.
    Raises: Interrupted if `stop` said so; nothing is written then.
    """
    s = experiment.settings
    transcripts: list[dict[str, Any]] = []
    pending: tuple[Episode, Sequence[Problem]] | None = None

    def finish(sampled: Episode, problems: Sequence[Problem]) -> None:
        graded = _graded(experiment, sampled, problems)
        if not transcripts:
            shaded = shading.of_first_rows(experiment, params, reference, sampled, len(problems))
            for row, attempts in zip(graded, shaded, strict=False):
                for attempt, values in zip(row["attempts"], attempts, strict=True):
                    attempt["shading"] = values
        transcripts.extend(graded)

    for prompts, valid in experiment.evaluation_batches(problems, s.evaluation.batch):
        if stop():
            raise hosts.Interrupted
        sampled = _greedy(experiment, params, prompts)
        if pending:  # grade on the host while the device decodes the next batch
            finish(*pending)
        pending = (sampled, prompts.problems[:valid])
    if pending:
        finish(*pending)
    texts = [[attempt["text"] for attempt in row["attempts"]] for row in transcripts]
    edits = [row["edit_ratio"] for row in transcripts if "edit_ratio" in row]
    solved_NA, reward_NA, truncated_NA, lenient_NA, tokens_NA = (
        np.array([[attempt[key] for attempt in row["attempts"]] for row in transcripts])
        for key in ("solved", "reward", "truncated", "lenient", "tokens")
    )
    metrics = evaluation_metrics(
        solved_NA,
        changed(texts),
        truncated_NA,
        reward_NA=reward_NA,
        reasons=[[attempt["reason"] for attempt in row["attempts"]] for row in transcripts],
        lenient_NA=lenient_NA,
        edit_ratio_N=np.array(edits) if edits else None,
        seed=s.seed,
    )
    tags = [row.get("tags", {}) for row in transcripts]
    metrics["details"] = breakdown.details(solved_NA, texts, tokens_NA, tags, seed=s.seed)
    if experiment.marks:
        metrics["details"]["selective"] = breakdown.verdicts(
            selective.true_verdicts(texts, solved_NA, experiment.marks),
            [[selective.verdict(text, experiment.marks) for text in row[1:]] for row in texts],
        )
    if s.evaluation.samples:
        metrics["sampled"] = _sampled(experiment, params, problems, stop)
    return Evaluation(metrics, transcripts)


def _greedy(experiment: Experiment, params: Params, prompts: PromptBatch) -> Episode:
    """All attempts at a batch of problems, by the protocol."""
    s = experiment.settings
    run = functools.partial(
        episode.run,
        params,
        key=jax.random.key(s.seed),  # greedy decoding draws nothing
        mesh=experiment.mesh,
    )
    settings = experiment.episode_settings(policy=GREEDY, samples=1, attempts=s.evaluation.attempts)
    return PROTOCOLS[s.evaluation.protocol](experiment, run, prompts, settings)


def _self_refine(
    experiment: Experiment, run: Callable, prompts: PromptBatch, settings: EpisodeSettings
) -> Episode:
    """A critique and a rewrite after the first attempt."""
    template = experiment.template
    texts = SELF_REFINE[experiment.settings.problems.prompt]
    critique, rewrite = map(experiment.instruction_ids, texts)
    first = run(prompts, settings=dataclasses.replace(settings, attempts=1))
    after = contexts.prompts_after(
        hosts.whole(first),
        prompts,
        instruction=critique,
        turn_end=template.turn_end_ids,
        columns=first.tokens.shape[1] + len(template.turn_end_ids) + len(critique),
        pad_id=settings.pad_id,
        end_ids=settings.end_ids if settings.close_stopped else (),
    )
    criticised = dataclasses.replace(
        settings, attempts=2, instruction=tuple(rewrite), instructions=()
    )
    return contexts.around_a_critique(first, run(after, settings=criticised))


# (experiment, run, prompts, settings) -> Episode; `run` is `episode.run` with params and key.
PROTOCOLS: dict[str, Callable[..., Episode]] = {
    "correct": lambda experiment, run, prompts, settings: run(prompts, settings=settings),
    "self_refine": _self_refine,
}


def _sampled(
    experiment: Experiment, params: Params, problems: Sequence[Problem], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Averages over samples at `evaluation.temperature`, and pass@k."""
    s = experiment.settings
    settings = experiment.episode_settings(
        policy=Policy(s.evaluation.temperature),
        samples=s.evaluation.samples,
        attempts=s.evaluation.attempts,
    )
    key = jax.random.fold_in(jax.random.key(s.seed), _SAMPLES)
    solved = []
    for prompts, valid in experiment.evaluation_batches(problems, s.evaluation.batch):
        if stop():
            raise hosts.Interrupted
        rows = episode.run(params, prompts, key, settings=settings, mesh=experiment.mesh)
        own = grading.own_rows(experiment, rows, prompts.problems[:valid], samples=settings.samples)
        solved_BA = np.array(own.in_order(grading.grade(experiment, own).solved_NA.tolist()))
        solved.append(solved_BA.reshape(valid, settings.samples, -1))
    found = sampled_metrics(np.concatenate(solved), seed=s.seed)
    return {**found, "temperature": s.evaluation.temperature}


def _graded(
    experiment: Experiment, sampled: Episode, problems: Sequence[Problem]
) -> list[dict[str, Any]]:
    """The transcripts of a batch, one per problem; each process grades its own rows."""
    own = grading.own_rows(experiment, sampled, problems)
    grades = grading.grade(experiment, own)
    lenient_NA = grading.lenient(experiment, own, grades.solved_NA)
    attempts = range(own.rows.truncated.shape[1])
    transcripts = [
        {
            "id": problem.id,
            "problem": problem.prompt,
            "gold": problem.gold,
            **({"tags": dict(problem.tags)} if problem.tags else {}),
            **({"edit_ratio": edit_ratio(*texts[:2])} if len(texts) > 1 else {}),
            "attempts": [
                {
                    "text": texts[a],
                    "reward": float(grades.reward_NA[n, a]),
                    "solved": bool(grades.solved_NA[n, a]),
                    "lenient": bool(lenient_NA[n, a]),
                    "reason": grades.reasons[n][a],
                    "tokens": int(np.sum(own.rows.attempt[n] == a + 1)),
                    "truncated": bool(own.rows.truncated[n, a]),
                }
                for a in attempts
            ],
        }
        for n, (problem, texts) in enumerate(zip(own.problems, own.texts, strict=True))
    ]
    return own.in_order(transcripts)
