"""Greedy evaluation: all attempts at every held-out problem -> metrics and transcripts.

With `evaluation.samples` every problem is also sampled, for averages and pass@k. With the protocol
"self_refine" the model first criticises its attempt in a turn of its own and then rewrites it,
without the run's instruction. The critique is not graded.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import grading, jsonfiles
from score_jax.evaluation import breakdown, shading
from score_jax.evaluation.edits import edit_ratio
from score_jax.evaluation.metrics import evaluation_metrics
from score_jax.evaluation.queue import Countdown, Kept, of_every_sample
from score_jax.evaluation.sampled import sampled_metrics
from score_jax.experiment import GREEDY, Experiment
from score_jax.grading import OwnRows, changed
from score_jax.model.weights import fingerprint
from score_jax.problem import Problem
from score_jax.rewards import selective
from score_jax.rl.policy import Policy
from score_jax.rollout import contexts
from score_jax.rollout.engine import Engine
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import hosts
from score_jax.structs import Episode, Params, PromptBatch
from score_jax.text.prompts import SELF_REFINE

_SAMPLES = 2**31 + 2  # folded into the seed's key; training and scaling fold in others

Record = dict[str, Any]
# (prompts, make, settings=…, part=…) -> records of all samples: queue.of_every_sample
Queue = Callable[..., list[Any]]


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
    engine: Engine | None = None,
    stop: Callable[[], bool] = lambda: False,
    kept: Kept | None = None,
    countdown: Countdown | None = None,
    prompt_tokens: int = 0,
    training: bool = False,
) -> Evaluation:
    """Decodes all attempts greedily and grades them.

    Args:
      reference: weights of the base model, for the shading of the first transcripts (shading.py).
      engine: samples in place of this process, with the same weights.
      stop: asked every few seconds; true ends the evaluation.
      kept: what an earlier process has done of it, and where this one's work is kept.
      prompt_tokens: the longest prompt of all sets that are to share the compiled programs.
      training: as of `of_every_sample`.
    Raises: Interrupted if `stop` said so.
    """
    s = experiment.settings
    prompts = experiment.evaluation_prompts(problems)
    queue = functools.partial(
        of_every_sample,
        experiment,
        params,
        engine=engine,
        rows=s.evaluation.batch,
        training=training,
        together=s.evaluation.batch if grading.in_batches(experiment) else 1,
        kept=kept,
        stop=stop,
        countdown=countdown,
        prompt_tokens=prompt_tokens,
    )
    settings = experiment.episode_settings(policy=GREEDY, samples=1, attempts=s.evaluation.attempts)
    shaded = shading.rows_of(len(problems))
    records = PROTOCOLS[s.evaluation.protocol](experiment, queue, prompts, settings, shaded)
    transcripts = [record["transcript"] for record in records]
    rows = contexts.of_records([record["row"] for record in records[:shaded]], settings.pad_id)
    longest = max(prompt_tokens, prompts.tokens.shape[1])
    widest = settings.row_tokens(longest, prompts.instruction_tokens)
    columns = max(widest, rows.tokens.shape[1])
    found = shading.of_rows(experiment, params, reference, rows, columns)
    for row, attempts in zip(transcripts, found, strict=False):
        for attempt, values in zip(row["attempts"], attempts, strict=True):
            attempt["shading"] = values
    metrics = _metrics(experiment, transcripts)
    if s.evaluation.samples:
        metrics["sampled"] = _sampled(experiment, queue, prompts)
    return Evaluation(metrics, transcripts)


# Of these groups of settings, but for what changes no record. Golds say which problems they are.
_DEPENDS_ON = {
    "model": (),
    "problems": ("tests", "bad_golds"),
    "rewards": (
        *("workers", "retries", "remember", "failed_share", "sandbox", "allow_unsandboxed"),
        *("environment", "function_timeout_sec", "function_memory_gib"),
    ),
    "evaluation": ("batch", "every", "every_problems", "every_except"),
    "rollout": ("slots", "turn_rows", "shrink"),
}


def kept_in(folder: Path, name: str, digest: str, weights: str) -> Kept:
    """What is done of an evaluation, in the work directory; remove it once the results are written.

    name: as in evaluations/NAME.json. digest: as `digest_of` returns it. weights: what tells these
    weights from others of the run.
    """
    of = {"weights": weights, "digest": digest}
    return Kept(folder / "evaluations" / f"{name}.part.jsonl", of)


def digest_of(experiment: Experiment, problems: Sequence[Problem]) -> str:
    """16 hexadecimal digits for all that an evaluation depends on but the run's own training.

    That is settings, problems, the files of `model.source` and those of the reward functions.
    """
    s = jsonfiles.plain(experiment.settings)
    how = {key: s[key] | dict.fromkeys(without) for key, without in _DEPENDS_ON.items()}
    how["rollout"]["engine"] = how["rollout"]["engine"].partition(":")[0]
    prompts = experiment.evaluation_prompts(problems)
    golds = [[problem.id, problem.gold] for problem in problems]
    files = [fingerprint(s["model"]["source"]), grading.reward_code(experiment.settings)]
    digest = hashlib.sha256(json.dumps([how, s["seed"], golds, files], sort_keys=True).encode())
    digest.update(prompts.tokens.tobytes())
    if prompts.instructions:
        digest.update(prompts.instructions.tokens.tobytes())
    return digest.hexdigest()[:16]


def _metrics(experiment: Experiment, transcripts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seed = experiment.settings.seed
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
        seed=seed,
    )
    tags = [row.get("tags", {}) for row in transcripts]
    metrics["details"] = breakdown.details(solved_NA, texts, tokens_NA, tags, seed=seed)
    if experiment.marks:
        metrics["details"]["selective"] = breakdown.verdicts(
            selective.true_verdicts(texts, solved_NA, experiment.marks),
            [[selective.verdict(text, experiment.marks) for text in row[1:]] for row in texts],
        )
    return metrics


def _correct(
    experiment: Experiment,
    queue: Queue,
    prompts: PromptBatch,
    settings: EpisodeSettings,
    shaded: int,
) -> list[Record]:
    """Attempts with the run's instruction between them."""
    key = jax.random.key(experiment.settings.seed)  # greedy decoding draws nothing
    make = functools.partial(_graded, experiment, shaded=shaded)
    return queue(prompts, make, settings=settings, key=key, part="greedy")


def _self_refine(
    experiment: Experiment,
    queue: Queue,
    prompts: PromptBatch,
    settings: EpisodeSettings,
    shaded: int,
) -> list[Record]:
    """A critique and a rewrite after the first attempt."""
    key, template = jax.random.key(experiment.settings.seed), experiment.template
    texts = SELF_REFINE[experiment.settings.problems.prompt]
    critique, rewrite = map(template.turn, texts)

    def decoded(prompts: PromptBatch, settings: EpisodeSettings, part: str) -> Episode:
        found = queue(prompts, _rows, settings=settings, key=key, part=part)
        return contexts.of_records(found, settings.pad_id)

    first = decoded(prompts, dataclasses.replace(settings, attempts=1), "first attempts")
    after = contexts.prompts_after(
        first,
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
    rows = contexts.around_a_critique(first, decoded(after, criticised, "critiques"))
    mine, row_N = hosts.shared_out(rows)
    own = grading.decoded(experiment, mine, row_N, [prompts.problems[n] for n in row_N])
    return own.in_order(_graded(experiment, own, shaded=shaded))


# (experiment, queue, prompts, settings, shaded) -> a record of each problem: its transcript and,
# of the first `shaded` ones, its row
PROTOCOLS: dict[str, Callable[..., list[Record]]] = {
    "correct": _correct,
    "self_refine": _self_refine,
}


def _sampled(experiment: Experiment, queue: Queue, prompts: PromptBatch) -> dict[str, Any]:
    """Averages over samples at `evaluation.temperature`, and pass@k."""
    s = experiment.settings
    settings = experiment.episode_settings(
        policy=Policy(s.evaluation.temperature),
        samples=s.evaluation.samples,
        attempts=s.evaluation.attempts,
    )
    solved = queue(
        prompts,
        lambda own: grading.grade(experiment, own).solved_NA,
        settings=settings,
        key=jax.random.fold_in(jax.random.key(s.seed), _SAMPLES),
        part="sampled",
    )
    solved_NGA = np.array(solved, bool).reshape(len(prompts.tokens), settings.samples, -1)
    found = sampled_metrics(solved_NGA, seed=s.seed)
    return {**found, "temperature": s.evaluation.temperature}


def _graded(experiment: Experiment, own: OwnRows, *, shaded: int) -> list[Record]:
    """The records of rows, one for each problem."""
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
    rows = _rows(own)
    return [
        {"transcript": transcript} | ({"row": row} if number < shaded else {})
        for number, transcript, row in zip(own.row_N, transcripts, rows, strict=True)
    ]


def _rows(own: OwnRows) -> list[dict[str, Any]]:
    return contexts.records(own.rows)
