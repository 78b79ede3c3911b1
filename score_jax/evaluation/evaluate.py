"""Greedy evaluation: all attempts at every held-out problem -> metrics and transcripts.

With `evaluation.samples` every problem is sampled besides, for averages and pass@k. With the
protocol "self_refine" the second attempt is not asked for by the run's instruction: the model first
criticises its attempt in a turn of its own and then rewrites it. The critique is not graded.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_jax.data import pipeline
from score_jax.evaluation import breakdown, shading
from score_jax.evaluation.edits import edit_ratio
from score_jax.evaluation.metrics import evaluation_metrics
from score_jax.evaluation.sampled import sampled_metrics
from score_jax.experiment import GREEDY, Experiment, changed
from score_jax.problem import Problem
from score_jax.rewards import grader, selective
from score_jax.rl.policy import Policy
from score_jax.rollout import contexts, episode
from score_jax.runtime import hosts
from score_jax.structs import Episode, Params, PromptBatch
from score_jax.text.prompts import SELF_REFINE

_SAMPLES = 2**31 + 2  # folded into the seed's key; apart from what training and scaling draw


class Interrupted(Exception):
    """A signal asked to stop; nothing was written."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    metrics: dict[str, Any]  # metrics.evaluation_metrics
    transcripts: list[dict[str, Any]]  # one per problem, the lines of transcripts/*.jsonl


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
    Raises: Interrupted if `stop` said so.
    """
    s = experiment.settings
    transcripts: list[dict[str, Any]] = []
    pending: tuple[Episode, PromptBatch, int] | None = None

    def finish(done: tuple[Episode, PromptBatch, int]) -> None:
        graded = _grade(experiment, *done)
        if not transcripts:
            shaded = shading.of_first_rows(experiment, params, reference, done[0], done[2])
            for row, attempts in zip(graded, shaded, strict=False):
                for attempt, values in zip(row["attempts"], attempts, strict=True):
                    attempt["shading"] = values
        transcripts.extend(graded)

    for prompts, valid in _batches(experiment, problems):
        if stop():
            raise Interrupted
        sampled = _greedy(experiment, params, prompts)
        if pending:  # grade on the host while the device decodes the next batch
            finish(pending)
        pending = (sampled, prompts, valid)
    if pending:
        finish(pending)
    texts = [[attempt["text"] for attempt in row["attempts"]] for row in transcripts]
    edits = [row["edit_ratio"] for row in transcripts if "edit_ratio" in row]
    reward_NA, truncated_NA, tokens_NA = (
        np.array([[attempt[key] for attempt in row["attempts"]] for row in transcripts])
        for key in ("reward", "truncated", "tokens")
    )
    metrics = evaluation_metrics(
        reward_NA,
        changed(texts),
        truncated_NA,
        edit_ratio_N=np.array(edits) if edits else None,
        seed=s.seed,
    )
    tags = [row.get("tags", {}) for row in transcripts]
    metrics["details"] = breakdown.details(reward_NA, texts, tokens_NA, tags, seed=s.seed)
    if experiment.marks:
        metrics["details"]["selective"] = breakdown.verdicts(
            selective.true_verdicts(texts, reward_NA, experiment.marks),
            [[selective.verdict(text, experiment.marks) for text in row[1:]] for row in texts],
        )
    if s.evaluation.samples:
        metrics["sampled"] = _sampled(experiment, params, problems, stop)
    return Evaluation(metrics, transcripts)


def _batches(experiment: Experiment, problems: Sequence[Problem]):
    s = experiment.settings
    return pipeline.evaluation_batches(
        problems,
        experiment.template.first_turn,
        batch=s.evaluation.batch,
        max_prompt_tokens=s.rollout.max_prompt_tokens,
        pad_id=experiment.template.tokenizer.pad_id,
    )


def _greedy(experiment: Experiment, params: Params, prompts: PromptBatch) -> Episode:
    """All attempts at a batch of problems, as the protocol asks for them."""
    s, template = experiment.settings, experiment.template
    settings = experiment.episode_settings(policy=GREEDY, samples=1, attempts=s.evaluation.attempts)
    run = functools.partial(
        episode.run,
        params,
        key=jax.random.key(s.seed),  # unused by greedy decoding, which draws nothing
        mesh=experiment.mesh,
    )
    if s.evaluation.protocol == "correct":
        return run(prompts, settings=settings)
    critique, rewrite = map(experiment.instruction_ids, SELF_REFINE[s.problems.prompt])
    first = run(prompts, settings=dataclasses.replace(settings, attempts=1))
    behind = contexts.prompts_after(
        hosts.whole(first),
        prompts,
        instruction=critique,
        turn_end=template.turn_end_ids,
        columns=first.tokens.shape[1] + len(template.turn_end_ids) + len(critique),
        pad_id=settings.pad_id,
    )
    criticised = dataclasses.replace(settings, attempts=2, instruction=tuple(rewrite))
    return contexts.around_a_critique(first, run(behind, settings=criticised))


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
    rewards = []
    for prompts, valid in _batches(experiment, problems):
        if stop():
            raise Interrupted
        rows = episode.run(params, prompts, key, settings=settings, mesh=experiment.mesh)
        samples = s.evaluation.samples
        own, row_N = hosts.own_rows(rows)
        problems_N = [prompts.problems[row // samples] for row in row_N]
        reward_NA, _ = grade_rows(experiment, own, problems_N)
        reward_BA = np.array(hosts.in_order(row_N, reward_NA.tolist()), np.float32)
        rewards.append(reward_BA.reshape(-1, samples, reward_BA.shape[1])[:valid])
    found = sampled_metrics(np.concatenate(rewards), seed=s.seed)
    return {**found, "temperature": s.evaluation.temperature}


def grade_rows(
    experiment: Experiment,
    rows: Episode,
    problems: Sequence[Problem],
    texts: list[list[str]] | None = None,
) -> tuple[np.ndarray, list[list[str]]]:
    """Rewards and reasons of rows of an Episode, fetched; one problem for each. Cut off is 0.

    texts: what they say, if that is known already. With selective revision, what stands after each
      attempt is graded.
    """
    if not problems:  # a process may have no row of a batch
        return np.zeros(rows.truncated.shape, np.float32), []
    texts = texts or experiment.texts(rows)
    truncated_BA = np.asarray(rows.truncated)
    if experiment.marks:
        truncated_BA = selective.cut_off(texts, truncated_BA, experiment.marks)
        texts = [selective.standing(row, experiment.marks) for row in texts]
    limits = experiment.settings.rewards
    reward_BA, reasons = grader.grade(
        problems,
        texts,
        deadline_sec=limits.timeout_sec,
        program_sec=limits.program_timeout_sec,
        function=limits.function,
    )
    return zero_truncated(reward_BA, reasons, truncated_BA)


def _grade(
    experiment: Experiment, sampled: Episode, prompts: PromptBatch, valid: int
) -> list[dict[str, Any]]:
    """Transcripts of a batch's first `valid` rows; each process grades those that are its own."""
    own, row_N = hosts.own_rows(sampled)
    row_N = row_N[row_N < valid]
    own = jax.tree.map(lambda x: x[: len(row_N)], own)  # rows are in order
    texts = experiment.texts(own)
    problems = [prompts.problems[row] for row in row_N]
    reward_NA, reasons = grade_rows(experiment, own, problems, texts)
    transcripts = [
        {
            "id": problem.id,
            "problem": problem.prompt,
            "gold": problem.gold,
            **({"tags": dict(problem.tags)} if problem.tags else {}),
            **({"edit_ratio": edit_ratio(*texts[n][:2])} if len(texts[n]) > 1 else {}),
            "attempts": [
                {
                    "text": texts[n][a],
                    "reward": float(reward_NA[n, a]),
                    "reason": reasons[n][a],
                    "tokens": int(np.sum(own.attempt[n] == a + 1)),
                    "truncated": bool(own.truncated[n, a]),
                }
                for a in range(own.truncated.shape[1])
            ],
        }
        for n, problem in enumerate(problems)
    ]
    return hosts.in_order(row_N, transcripts)


def zero_truncated(
    reward_BA: np.ndarray, reasons: list[list[str]], truncated_BA: np.ndarray
) -> tuple[np.ndarray, list[list[str]]]:
    """An attempt that was cut off earns nothing, whatever it had written by then.

    The paper is silent on truncation; scoring it 0 teaches an attempt to end.
    """
    reasons = [
        ["truncated" if cut else reason for cut, reason in zip(cuts, row, strict=True)]
        for cuts, row in zip(truncated_BA, reasons, strict=True)
    ]
    return np.where(truncated_BA, np.float32(0.0), reward_BA), reasons
