"""Where a stage's batches come from: sampled and graded episodes, or documents.

    prepare(...)              what must be there before the first step: compiled shapes, documents
    dispatch(params, number)  queues on the device what step `number` needs
    collect(dispatched, began)  waits for it -> the batch of the update, and what was measured;
                              `began`: since when the device is at it; 0: now
    get_state(), set_state()  the position in the data, for checkpoints

All kinds have these, so that the loop of loop.py is one.
"""

from typing import Any

import jax
import numpy as np

from score_jax.batches import collected
from score_jax.batches.episodes import Dispatched, Sampler
from score_jax.data import schedule
from score_jax.data.sft import documents, filters
from score_jax.learner import step
from score_jax.learner.step import TrainState
from score_jax.run import Run
from score_jax.runtime import sharding
from score_jax.structs import Batch, Episode, Params, PromptBatch


def source(run: Run, index: int, reference: Params | None) -> Any:
    """The batches of stage `index` of the recipe; `reference` is of its KL terms."""
    stage = run.settings.stages[run.settings.recipe[index]]
    if stage.objective == "rl":
        return Episodes(run, index, reference)
    return (Collected if stage.collect.filter else Documents)(run, index)


class Episodes:
    """Batches of an RL stage: problems -> rollout -> grade."""

    def __init__(self, run: Run, index: int, reference: Params | None = None):
        self._run, self._reference = run, reference
        self._stage = run.settings.stages[run.settings.recipe[index]]
        self._sampler = Sampler(run, index)
        self.get_state, self.set_state = self._sampler.get_state, self._sampler.set_state

    def dispatch(self, params: Params, number: int) -> Dispatched:
        """Queues the rollout of step `number` on the device."""
        return self._sampler.dispatch(params, number, self._reference)

    def prepare(self, state: TrainState) -> None:
        """Compiles rollout and update for every width that a batch may have, if there are several.

        With one width the first step compiles what all steps need.
        """
        s = self._run.settings
        if not s.rollout.prompt_buckets:
            return
        for width in sorted({*s.rollout.prompt_buckets, s.rollout.max_prompt_tokens}):
            prompts = PromptBatch(
                tokens=np.zeros((s.rollout.problems_per_step, width), np.int32),
                length=np.ones(s.rollout.problems_per_step, np.int32),
                index=np.zeros(s.rollout.problems_per_step, np.int32),
                problems=(),
            )
            sampled = self._sampler.sample(
                state.params, prompts, 0, self._reference, tokens=1
            ).sampled
            zero_BA = np.zeros(sampled.truncated.shape, np.float32)
            batch = self._batch(sampled, zero_BA, zero_BA)
            base = self._run.experiment.base
            step.lower(state, self._reference, batch, stage=self._stage, base=base).compile()

    def collect(self, dispatched: Dispatched, began: float = 0.0) -> tuple[Batch, dict[str, float]]:
        """Waits for the rollout, which began then (time.perf_counter), and grades it."""
        graded = self._sampler.collect(dispatched, began)
        return self._batch(graded.sampled, graded.reward_BA, graded.true_BA), graded.measured

    def _batch(self, sampled: Episode, reward_BA: np.ndarray, true_BA: np.ndarray) -> Batch:
        rows, marks = sharding.rows(self._run.experiment.mesh), self._run.experiment.marks
        return Batch(
            tokens=sampled.tokens,
            attempt=sampled.attempt,
            logp=sampled.logp,
            length=sampled.length,
            reward=sharding.place(reward_BA, rows),
            truncated=sampled.truncated,
            true_verdict=sharding.place(true_BA, rows) if marks else None,
        )


class Documents:
    """Batches of an SFT stage: the problem set's own documents, learned as they stand."""

    def __init__(self, run: Run, index: int):
        s = run.settings
        stage = s.stages[s.recipe[index]]
        self._rows = (
            stage.documents_per_step or s.rollout.problems_per_step * s.rollout.samples_per_problem
        )
        self._run = run

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

    def collect(self, number: int, began: float = 0.0) -> tuple[Batch, dict[str, float]]:
        """The documents of step `number`."""
        del began
        rows = sharding.rows(self._run.experiment.mesh)
        batch = documents.pack(self._documents(number), **self._layout())
        return jax.tree.map(lambda x: sharding.place(x, rows), batch), {}

    def _documents(self, number: int) -> list[documents.Row]:
        s, template = self._run.settings, self._run.experiment.template
        where = (s.problems.name, s.problems.prompt)
        return documents.own(*where, template, seed=s.seed, step=number, rows=self._rows)

    def _layout(self) -> dict[str, Any]:
        s, experiment = self._run.settings, self._run.experiment
        return {
            "template": experiment.template,
            "columns": experiment.episode_settings().row_tokens(s.rollout.max_prompt_tokens),
            "max_attempt_tokens": s.rollout.max_attempt_tokens,
        }


class Collected(Documents):
    """Batches of an SFT stage on documents that some policy wrote (collected.py), in epochs."""

    def __init__(self, run: Run, index: int):
        super().__init__(run, index)
        self._index = index
        self._collect = run.settings.stages[run.settings.recipe[index]].collect
        self._found: list[filters.Dialogue] = []

    def prepare(self, state: TrainState) -> None:
        """Samples and filters the documents, unless that has been done; kept in the folder.

        Raises: Interrupted if the run was asked to stop, InputError if none is left.
        """
        self._found = collected.documents_of(self._run, self._index)
        # Few documents fill a step by repetition.
        copies = -(-self._rows // len(self._found))
        pool = np.tile(np.arange(len(self._found)), copies)
        seed = (self._run.settings.seed % 2**32, self._index, 7)
        self._order = schedule.Stream(pool, self._rows, seed)

    def _documents(self, number: int) -> list[documents.Row]:
        return [
            documents.Row(
                prompt=found.prompt,
                attempts=tuple(attempt.ids for attempt in found.attempts),
                truncated=tuple(attempt.truncated for attempt in found.attempts),
                learned=filters.learned(found, self._collect.learn_first),
            )
            for found in (self._found[i] for i in self._order.take(number - 1))
        ]
