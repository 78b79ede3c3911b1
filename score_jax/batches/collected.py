"""Batches of an SFT stage on documents that a policy writes (STaR, Pair-SFT, right first attempts).

The documents are sampled, graded, filtered and kept in DIR/collected/STAGE.jsonl before the first
step. The problems of all rollouts go through one queue, and their draws are addressed, so a stopped
collection resumes to the same documents. Until it is complete, the episodes that have ended are
kept in DIR/collected/STAGE.part.jsonl.
"""

import itertools
from typing import Any

import jax
import numpy as np

from score_jax import grading, jsonfiles
from score_jax.batches.documents import Documents
from score_jax.batches.episodes import problems_of
from score_jax.data.sft import documents, filters
from score_jax.data.sft.filters import Dialogue, Written
from score_jax.evaluation import queue
from score_jax.evaluation.queue import Countdown, Kept, of_every_sample
from score_jax.grading import Grades, OwnRows
from score_jax.learner.step import TrainState
from score_jax.problem import InputError
from score_jax.rollout import remote
from score_jax.run import Run, Stage
from score_jax.runtime import hosts
from score_jax.structs import PromptBatch


class Collected(Documents):
    """Batches of an SFT stage on documents that a policy wrote."""

    def __init__(self, run: Run, stage: Stage):
        super().__init__(run, stage)
        self._found: list[Dialogue] = []

    def prepare(self, state: TrainState) -> None:
        """Samples and filters the documents, unless that has been done.

        Raises: Interrupted if the run was asked to stop, InputError if none is left.
        """
        self._found = documents_of(self._run, self._stage)
        seed = (self._run.settings.seed % 2**32, self._stage.index, 7)
        self._order = documents.order(np.arange(len(self._found)), self._rows, seed)
        self._asked_of = self._own_instructions()

    def _documents(self, number: int) -> list[documents.Row]:
        learn_first = self._stage.settings.collect.learn_first
        return [
            documents.Row(
                prompt=found.prompt,
                attempts=tuple(attempt.ids for attempt in found.attempts),
                truncated=tuple(attempt.truncated for attempt in found.attempts),
                learned=filters.learned(found, learn_first),
                instructions=self._asked_of.get(found.problem, ()),
            )
            for found in (self._found[i] for i in self._order.take(number - 1))
        ]

    def _own_instructions(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The ids before later attempts of the documents' problems, where each has its own."""
        experiment, training = self._run.experiment, self._run.training
        if not experiment.asks_each:
            return {}
        wanted = {found.problem for found in self._found}
        known = {one.id: one for one in (training.problems if training else ()) if one.id in wanted}
        if missing := sorted(wanted - known.keys()):
            raise InputError(
                f"collected/{self._stage.name}.jsonl has documents of {len(missing)} problems that "
                f"are no longer in the training set ({missing[0]!r}), and the instruction between "
                "their attempts is not known. Restore the problems, or use another --workdir."
            )
        return {name: experiment.instructions_of(one) for name, one in known.items()}


def documents_of(run: Run, stage: Stage) -> list[Dialogue]:
    """The documents of a stage; sampled and filtered if their file is not there.

    Raises: Interrupted if the run was asked to stop; InputError if the filter leaves none.
    """
    name, collect = stage.name, stage.settings.collect
    path = run.folder / "collected" / f"{name}.jsonl"
    rows = queue.whole(path, run.log.say)
    if rows is None:
        of = {
            "rollouts": collect.steps,
            "samples": run.settings.rollout.rows,
            "reward_code": grading.reward_code(run.settings),
        }
        kept = Kept(path.with_suffix(".part.jsonl"), of)
        episodes = _episodes(run, stage, kept)
        found = filters.FILTERS[collect.filter](
            episodes, both_right=collect.both_right, seed=(run.settings.seed % 2**32, stage.index)
        )
        if hosts.is_lead():
            jsonfiles.write_counted(path, found)
        kept.remove()
        run.log.say(f"{name}: {len(found)} of {len(episodes)} episodes kept as documents.")
        rows = queue.whole(path, run.log.say) or []
    found = [_dialogue(row) for row in rows]
    if not found:
        raise InputError(
            f"the filter '{collect.filter}' left none of the episodes of {collect.steps} rollouts, "
            f"so {name} has nothing to learn from: see {path}. Collect more "
            f"(config.stages.{name}.collect.steps), or allow both_right."
        )
    return found


def _episodes(run: Run, stage: Stage, kept: Kept) -> list[Dialogue]:
    """All episodes; those that are not kept yet are sampled."""
    s, experiment, collect = run.settings, run.experiment, stage.settings.collect
    before = s.recipe[stage.index - 1] if stage.index else "base"
    policy = collect.policy or before
    engine = remote.connected(s)
    params = run.params_of(policy)
    if engine:
        engine.check_weights(experiment.merged(params), f"the policy '{policy}'")
    prompts = _prompts(run, stage)
    count = len(prompts.tokens) * s.rollout.samples_per_problem
    run.log.say(f"{stage.name}: {policy} writes {count} episodes for documents.")

    settings = experiment.episode_settings(attempts=filters.ATTEMPTS[collect.filter])

    def make(own: OwnRows) -> list[dict[str, Any]]:
        grades = grading.grade(experiment, own, stage=stage.name)
        failed = grades.failed or [""] * len(own.problems)
        written = _dialogues(own, grades, prompts.length, settings.samples)
        return [{**vars(one), "failed": why} for one, why in zip(written, failed, strict=True)]

    with run.phase("evaluation", stage.name):
        records = of_every_sample(
            experiment,
            experiment.weights(params),
            prompts,
            make,
            settings=settings,
            key=jax.random.fold_in(stage.key, 0),  # steps fold in others
            rows=s.rollout.rows,
            engine=engine,
            part=stage.name,
            kept=kept,
            together=s.rollout.rows if grading.in_batches(experiment) else 1,
            stop=run.stop,
            countdown=Countdown(
                run.log.say, f"{stage.name}: episode", goes_on=run.watchdog.goes_on
            ),
        )
    failed = [why for record in records if (why := record.pop("failed"))]
    if failed:
        run.log.say(
            f"WARNING in {stage.name}: the reward function failed for {len(failed)} of "
            f"{len(records)} rows ({failed[0]}); they earn "
            f"config.rewards.failed={s.rewards.failed:g}."
        )
    return [_dialogue(record) for record in records]


def _prompts(run: Run, stage: Stage) -> PromptBatch:
    """The problems of all rollouts. Their index is their place: a problem may be there twice."""
    found = list(itertools.islice(problems_of(run, stage), stage.settings.collect.steps))
    length_Q = np.concatenate([one.length for one in found])
    tokens_QP = np.full(
        (len(length_Q), length_Q.max()), run.experiment.template.tokenizer.pad_id, np.int32
    )
    for row_P, length, tokens_P in zip(
        tokens_QP, length_Q, itertools.chain.from_iterable(one.tokens for one in found), strict=True
    ):
        row_P[:length] = tokens_P[:length]
    own = [one.instructions for one in found if one.instructions]
    return PromptBatch(
        tokens=tokens_QP,
        length=length_Q,
        index=np.arange(len(length_Q), dtype=np.int32),
        problems=tuple(itertools.chain.from_iterable(one.problems for one in found)),
        instructions=jax.tree.map(lambda *x: np.concatenate(x), *own) if own else None,
    )


def _dialogue(row: dict[str, Any]) -> Dialogue:
    attempts = tuple(Written(**{**a, "ids": tuple(a["ids"])}) for a in row["attempts"])
    return Dialogue(row["problem"], tuple(row["prompt"]), attempts)


def _dialogues(own: OwnRows, grades: Grades, length_Q: np.ndarray, samples: int) -> list[Dialogue]:
    """This process's episodes as the ids that were sampled, where attempt 1 may be empty.

    length_Q: of the prompts, each with so many samples.
    """
    found = []
    for n, problem in enumerate(own.problems):
        tokens_T, marks_T = own.rows.tokens[n], own.rows.attempt[n]
        begin = length_Q[own.row_N[n] // samples]
        attempts = tuple(
            Written(
                ids=tuple(tokens_T[marks_T == a + 1].tolist()),
                reward=float(grades.reward_NA[n, a]),
                solved=bool(grades.solved_NA[n, a]),
                truncated=bool(own.rows.truncated[n, a]),
                text=own.texts[n][a],
            )
            for a in range(own.rows.truncated.shape[1])
        )
        found.append(Dialogue(problem.id, tuple(tokens_T[:begin].tolist()), attempts))
    return found
