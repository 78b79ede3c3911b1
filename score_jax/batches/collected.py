"""Batches of an SFT stage on documents that a policy writes (STaR, Pair-SFT, right first attempts).

The documents are sampled, graded, filtered and kept in DIR/collected/STAGE.jsonl before the first
step. Sampling is addressed like that of an RL stage: rollout n draws from (seed, stage, n), so a
stopped collection resumes to the same documents. Until it is complete, episodes are kept in
DIR/collected/STAGE.part.jsonl with the number of their rollout.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from score_jax import jsonfiles
from score_jax.batches.documents import Documents
from score_jax.batches.episodes import Episodes, Graded
from score_jax.data.sft import documents, filters
from score_jax.data.sft.filters import Dialogue, Written
from score_jax.evaluation.queue import Countdown
from score_jax.learner.step import TrainState
from score_jax.problem import InputError
from score_jax.rollout import remote
from score_jax.run import Run, Stage
from score_jax.runtime import hosts
from score_jax.workdir import spool


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
    if not hosts.lead_says(path.exists):
        part = path.with_suffix(".part.jsonl")
        episodes = [episode for _, episode in _episodes(run, stage, part)]
        found = filters.FILTERS[collect.filter](
            episodes, both_right=collect.both_right, seed=(run.settings.seed % 2**32, stage.index)
        )
        if hosts.is_lead():
            jsonfiles.write_lines(path, found)
            part.unlink()
        run.log.say(f"{name}: {len(found)} of {len(episodes)} episodes kept as documents.")
    lines = hosts.lead_says(lambda: path.read_text().splitlines())
    found = [_dialogue(json.loads(line)) for line in lines]
    if not found:
        raise InputError(
            f"the filter '{collect.filter}' left none of the episodes of {collect.steps} rollouts, "
            f"so {name} has nothing to learn from: see {path}. Collect more "
            f"(config.stages.{name}.collect.steps), or allow both_right."
        )
    return found


def _episodes(run: Run, stage: Stage, part: Path) -> list[tuple[int, Dialogue]]:
    """All episodes with their rollout's number; those still missing are sampled."""
    collect = stage.settings.collect
    left = hosts.lead_says(lambda: part.read_text(encoding="ascii") if part.exists() else "")
    known = list(_whole_rollouts(left, run.settings.rollout.rows))
    # Process 0 writes what all find.
    kept = part if hosts.is_lead() else Path(os.devnull)
    if hosts.is_lead():
        jsonfiles.write_lines(part, ({"rollout": n, **jsonfiles.plain(e)} for n, e in known))
    done = known[-1][0] if known else 0
    if done == collect.steps:
        return known
    before = run.settings.recipe[stage.index - 1] if stage.index else "base"
    policy = collect.policy or before
    engine = remote.connected(run.settings)
    params = run.params_of(policy)
    if engine:
        engine.check_weights(run.experiment.merged(params), f"the policy '{policy}'")
    sampled = Episodes(run, stage, attempts=filters.ATTEMPTS[collect.filter], engine=engine)
    sampled.skip(done)
    run.log.say(f"{stage.name}: {policy} writes documents, {collect.steps - done} rollouts.")
    countdown = Countdown(run.log.say, f"{stage.name}: rollout")
    countdown.show(done, collect.steps)
    with open(kept, "a", encoding="ascii") as file:
        for number in range(done + 1, collect.steps + 1):
            if run.stop():
                raise hosts.Interrupted
            dispatched = sampled.dispatch(params, number)
            begins_Q = dispatched.prompts.length
            begins_B = np.repeat(begins_Q, run.settings.rollout.samples_per_problem)
            episodes = _dialogues(sampled.graded(dispatched), begins_B)
            lines = ({"rollout": number, **jsonfiles.plain(episode)} for episode in episodes)
            file.write("".join(map(jsonfiles.line, lines)))
            file.flush()
            spool.written(kept)
            known += [(number, episode) for episode in episodes]
            countdown.show(number, collect.steps)
    return known


def _whole_rollouts(left: str, rows: int) -> Iterator[tuple[int, Dialogue]]:
    """What an earlier process left; a rollout of which lines are missing counts as not done."""
    by_rollout: dict[int, list[Dialogue]] = {}
    for line in left.splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # torn by a crash
            break
        by_rollout.setdefault(row["rollout"], []).append(_dialogue(row))
    for number, episodes in by_rollout.items():
        if len(episodes) == rows:
            yield from ((number, episode) for episode in episodes)


def _dialogue(row: dict[str, Any]) -> Dialogue:
    attempts = tuple(Written(**{**a, "ids": tuple(a["ids"])}) for a in row["attempts"])
    return Dialogue(row["problem"], tuple(row["prompt"]), attempts)


def _dialogues(graded: Graded, begins_B: np.ndarray) -> list[Dialogue]:
    """A step's episodes as the ids that were sampled; each process reads its own.

    begins_B: the column where attempt 1 begins, which may be empty.
    """
    own, rows = graded.own, graded.own.rows
    found = []
    for n, problem in enumerate(own.problems):
        marks_T = rows.attempt[n]
        begin = begins_B[own.row_N[n]]
        attempts = tuple(
            Written(
                ids=tuple(rows.tokens[n][marks_T == a + 1].tolist()),
                reward=float(graded.reward_BA[own.row_N[n], a]),
                solved=bool(graded.solved_BA[own.row_N[n], a]),
                truncated=bool(rows.truncated[n, a]),
                text=own.texts[n][a],
            )
            for a in range(rows.truncated.shape[1])
        )
        found.append(Dialogue(problem.id, tuple(rows.tokens[n, :begin].tolist()), attempts))
    return [_dialogue(row) for row in own.in_order(jsonfiles.plain(found))]
