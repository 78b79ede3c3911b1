"""Batches of an SFT stage: the problem set's own documents, packed into rows."""

from typing import Any

import jax

from score_jax.data.sft import documents
from score_jax.learner.step import TrainState
from score_jax.run import Run, Stage
from score_jax.runtime import sharding
from score_jax.structs import Batch, Params


class Documents:
    """Batches of an SFT stage on the problem set's own documents."""

    def __init__(self, run: Run, stage: Stage):
        self._rows = stage.settings.documents_per_step or run.settings.rollout.rows
        self._run, self._stage = run, stage

    def get_state(self) -> dict[str, Any]:
        """Nothing: a step's documents depend on seed and step alone."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def prepare(self, state: TrainState) -> None:
        """Nothing: all batches have one shape."""

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
            columns=experiment.columns,
            max_attempt_tokens=self._run.settings.rollout.max_attempt_tokens,
        )
        return jax.tree.map(lambda x: sharding.place(x, rows), batch), {}

    def _documents(self, number: int) -> list[documents.Row]:
        s, template = self._run.settings, self._run.experiment.template
        where = (s.problems.name, s.problems.prompt)
        return documents.own(*where, template, seed=s.seed, step=number, rows=self._rows)
