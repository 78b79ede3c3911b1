"""Batches of an SFT stage: the problems' own solutions or a corpus, packed into rows."""

from collections.abc import Sequence
from typing import Any

import jax

from score_jax.data.sft import documents
from score_jax.learner.step import TrainState
from score_jax.problem import InputError
from score_jax.run import Run, Stage
from score_jax.runtime import sharding
from score_jax.structs import Batch, Params

_DOCUMENTS = "documents"  # a key of a saved position


class Documents:
    """Batches of an SFT stage on documents that the problem set has."""

    taken: Sequence[Any] = ()  # nothing is sampled

    def __init__(self, run: Run, stage: Stage):
        self._rows = stage.settings.documents_per_step or run.settings.rollout.rows
        self._run, self._stage = run, stage
        self._columns = run.experiment.columns
        self._own = run.training.documents.get(stage.name) if run.training else None
        if self._own:
            before = run.experiment.episode_settings().before(2)
            self._columns = min(self._columns, self._own.columns(len(before)))

    def get_state(self) -> dict[str, Any]:
        """Which documents there are: those of a step depend on seed and step alone."""
        return {_DOCUMENTS: self._own.digest} if self._own else {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore. Raises: InputError if the documents have changed."""
        now = self.get_state()
        if state.get(_DOCUMENTS, now.get(_DOCUMENTS)) != now.get(_DOCUMENTS):
            raise InputError(
                f"the problems whose solutions the stage '{self._stage.name}' learns have changed "
                "since it began. Restore their files, or start in a new work directory."
            )

    def prepare(self, state: TrainState) -> None:
        """Says what is learned; all batches have one shape."""
        if self._own:
            self._run.log.say(f"{self._stage.name}: {self._own.said}")

    def dispatch(self, params: Params, number: int) -> int:
        """Nothing to sample."""
        del params
        return number

    def batch(self, number: int, began: float = 0.0) -> tuple[Batch, dict[str, float]]:
        """The documents of step `number`."""
        del began
        experiment = self._run.experiment
        rows = sharding.rows(experiment.mesh)
        batch = documents.pack(
            self._documents(number),
            template=experiment.template,
            before=experiment.episode_settings().before,
            columns=self._columns,
            max_attempt_tokens=self._run.settings.rollout.max_attempt_tokens,
        )
        measured = {"documents_left_out": float(self._own.left_out)} if self._own else {}
        return jax.tree.map(lambda x: sharding.place(x, rows), batch), measured

    def _documents(self, number: int) -> list[documents.Row]:
        s, template = self._run.settings, self._run.experiment.template
        if self._own:
            return self._own.rows(number)
        corpus = (s.problems.name, s.problems.prompt)
        return documents.of_corpus(*corpus, template, seed=s.seed, step=number, rows=self._rows)
