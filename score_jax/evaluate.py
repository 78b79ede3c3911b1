"""Greedy evaluation: all attempts at every held-out problem -> metrics and transcripts."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_jax import shading
from score_jax.data import pipeline
from score_jax.edits import edit_ratio
from score_jax.experiment import GREEDY, Experiment, changed
from score_jax.metrics import evaluation_metrics
from score_jax.problem import Problem
from score_jax.rewards import grader
from score_jax.rollout import episode
from score_jax.structs import Episode, Params, PromptBatch


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
    settings = experiment.episode_settings(policy=GREEDY, samples=1)
    key = jax.random.key(s.seed)  # unused by greedy decoding, which draws nothing
    batches = pipeline.evaluation_batches(
        problems,
        experiment.template.first_turn,
        batch=s.evaluation.batch,
        max_prompt_tokens=s.rollout.max_prompt_tokens,
        pad_id=experiment.template.tokenizer.pad_id,
    )
    rewards, truncated = [], []
    transcripts: list[dict[str, Any]] = []
    pending: tuple[Episode, PromptBatch, int] | None = None

    def finish(done: tuple[Episode, PromptBatch, int]) -> None:
        graded = _grade(experiment, *done)
        rewards.append(graded[0])
        truncated.append(graded[1])
        if not transcripts:
            shaded = shading.of_first_rows(experiment, params, reference, done[0], done[2])
            for row, attempts in zip(graded[2], shaded, strict=False):
                for attempt, values in zip(row["attempts"], attempts, strict=True):
                    attempt["shading"] = values
        transcripts.extend(graded[2])

    for prompts, valid in batches:
        if stop():
            raise Interrupted
        sampled = episode.run(params, prompts, key, settings=settings, mesh=experiment.mesh)
        if pending:  # grade on the host while the device decodes the next batch
            finish(pending)
        pending = (sampled, prompts, valid)
    if pending:
        finish(pending)
    texts = [[attempt["text"] for attempt in row["attempts"]] for row in transcripts]
    edits = [row["edit_ratio"] for row in transcripts if "edit_ratio" in row]
    metrics = evaluation_metrics(
        np.concatenate(rewards),
        changed(texts),
        np.concatenate(truncated),
        edit_ratio_N=np.array(edits) if edits else None,
        seed=s.seed,
    )
    return Evaluation(metrics, transcripts)


def _grade(experiment: Experiment, sampled: Episode, prompts: PromptBatch, valid: int):
    """Rewards, truncation flags and transcripts of a batch's first `valid` rows."""
    texts = experiment.texts(sampled)[:valid]
    problems = prompts.problems[:valid]
    truncated_BA = np.asarray(sampled.truncated)[:valid]
    limits = experiment.settings.rewards
    reward_BA, reasons = grader.grade(
        problems,
        texts,
        deadline_sec=limits.timeout_sec,
        program_sec=limits.program_timeout_sec,
        function=limits.function,
    )
    reward_BA, reasons = zero_truncated(reward_BA, reasons, truncated_BA)
    attempt_BT = np.asarray(sampled.attempt)[:valid]
    transcripts = [
        {
            "id": problem.id,
            "problem": problem.prompt,
            "gold": problem.gold,
            **({"tags": dict(problem.tags)} if problem.tags else {}),
            **({"edit_ratio": edit_ratio(*texts[b][:2])} if len(texts[b]) > 1 else {}),
            "attempts": [
                {
                    "text": texts[b][a],
                    "reward": float(reward_BA[b, a]),
                    "reason": reasons[b][a],
                    "tokens": int(np.sum(attempt_BT[b] == a + 1)),
                    "truncated": bool(truncated_BA[b, a]),
                }
                for a in range(truncated_BA.shape[1])
            ],
        }
        for b, problem in enumerate(problems)
    ]
    return reward_BA, truncated_BA, transcripts


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
