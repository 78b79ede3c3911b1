"""Where a stage's batches come from: sampled and graded episodes, or documents.

    dispatch(params, number)  queues on the device what step `number` needs
    collect(dispatched)       waits for it -> the batch of the update, and what was measured
    get_state(), set_state()  the position in the data, for checkpoints
    warm_up(...)              compiles every shape that a step may have, where there are several

Both kinds have these four, so that the loop of train.py is one.
"""

import time
from typing import Any

import jax
import numpy as np

from score_jax import sharding
from score_jax.config import StageSettings
from score_jax.data import documents, pipeline
from score_jax.evaluate import zero_truncated
from score_jax.experiment import changed
from score_jax.learner import step
from score_jax.learner.step import TrainState
from score_jax.rewards import grader
from score_jax.rollout import episode
from score_jax.run import Run
from score_jax.structs import Batch, Episode, Params, PromptBatch


class Episodes:
    """Batches of an RL stage: problems -> rollout -> grade."""

    def __init__(self, run: Run, index: int):
        s = run.settings
        self._run = run
        stage = s.stages[s.recipe[index]]
        self._rollout = run.experiment.episode_settings(attempts=stage.attempts)
        template = run.experiment.template
        assert run.training
        earlier = [s.stages[name] for name in s.recipe[:index]]
        self._prompts = pipeline.batches(
            run.training.problems,
            template.first_turn,
            batch=s.rollout.problems_per_step,
            max_prompt_tokens=s.rollout.max_prompt_tokens,
            pad_id=template.tokenizer.pad_id,
            seed=s.seed + 1000 * index,  # another order in every stage
            bucket_sizes=s.rollout.prompt_buckets,
            parts=run.training.parts,
            curriculum_steps=s.problems.curriculum_steps,
            steps_before=sum(stage.steps for stage in earlier if stage.objective == "rl"),
        )
        self._key = jax.random.fold_in(jax.random.key(s.seed), 1 + index)

    def get_state(self) -> dict[str, Any]:
        """The position in the data, JSON-able."""
        return self._prompts.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a saved position."""
        self._prompts.set_state(state)

    def dispatch(self, params: Params, number: int) -> tuple[Episode, PromptBatch]:
        """Queues the rollout of step `number` on the device."""
        prompts = next(self._prompts)
        return self._sample(params, prompts, number), prompts

    def warm_up(self, state: TrainState, reference: Params | None, stage: StageSettings) -> None:
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
            sampled = self._sample(state.params, prompts, 0, tokens=1)
            batch = self._batch(sampled, np.zeros(sampled.truncated.shape, np.float32))
            base = self._run.experiment.base
            step.lower(state, reference, batch, stage=stage, base=base).compile()

    def _sample(
        self, params: Params, prompts: PromptBatch, number: int, tokens: int = 0
    ) -> Episode:
        """The rollout of one step; with `tokens`, of attempts that long at most."""
        limit_QGA = None
        if tokens:
            shape = (len(prompts.tokens), self._rollout.samples, self._rollout.attempts)
            limit_QGA = np.full(shape, tokens, np.int32)
        with self._run.watch.phase("rollout", self._rollout, prompts.tokens.shape[1]):
            return episode.run(
                self._run.experiment.weights(params),
                prompts,
                jax.random.fold_in(self._key, number),
                settings=self._rollout,
                mesh=self._run.experiment.mesh,
                limit_QGA=limit_QGA,
            )

    def _batch(self, sampled: Episode, reward_BA: np.ndarray) -> Batch:
        mesh = self._run.experiment.mesh
        return Batch(
            tokens=sampled.tokens,
            attempt=sampled.attempt,
            logp=sampled.logp,
            length=sampled.length,
            reward=jax.device_put(reward_BA, sharding.rows(mesh)),
            truncated=sampled.truncated,
        )

    def collect(self, dispatched: tuple[Episode, PromptBatch]) -> tuple[Batch, dict[str, float]]:
        """Waits for the rollout and grades it. Call it when the device has nothing older to do."""
        sampled, prompts = dispatched
        experiment = self._run.experiment
        started = time.perf_counter()
        episode.check(sampled)
        texts = experiment.texts(sampled)
        decoded = time.perf_counter()
        samples = self._rollout.samples
        problems = [problem for problem in prompts.problems for _ in range(samples)]
        limits = self._run.settings.rewards
        reward_BA, reasons = grader.grade(
            problems,
            texts,
            deadline_sec=limits.timeout_sec,
            program_sec=limits.program_timeout_sec,
            function=limits.function,
        )
        truncated_BA = np.asarray(sampled.truncated)
        reward_BA, reasons = zero_truncated(reward_BA, reasons, truncated_BA)
        graded = time.perf_counter()
        generated = int(np.sum(np.asarray(sampled.attempt) > 0))
        measured = {
            "changed": float(np.mean(changed(texts))),
            "prompts_left_out": self._prompts.dropped,  # of the set: too long
            "sec/rollout": decoded - started,
            "sec/grade": graded - decoded,
            "tokens_per_sec/rollout": generated / (decoded - started),
        }
        return self._batch(sampled, reward_BA), measured


class Documents:
    """Batches of an SFT stage: the problem set's own documents, learned as they stand."""

    def __init__(self, run: Run, index: int):
        s = run.settings
        stage = s.stages[s.recipe[index]]
        rows = stage.documents_per_step
        self._rows = rows or s.rollout.problems_per_step * s.rollout.samples_per_problem
        self._run = run

    def get_state(self) -> dict[str, Any]:
        """Nothing: a step's documents depend on seed and step alone."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def warm_up(self, state: TrainState, reference: Params | None, stage: StageSettings) -> None:
        """Nothing: all batches have one shape."""

    def dispatch(self, params: Params, number: int) -> int:
        """Nothing to sample."""
        del params
        return number

    def collect(self, number: int) -> tuple[Batch, dict[str, float]]:
        """The documents of step `number`."""
        s, experiment = self._run.settings, self._run.experiment
        batch = documents.batch(
            s.problems.name,
            experiment.template,
            seed=s.seed,
            step=number,
            rows=self._rows,
            columns=experiment.episode_settings().row_tokens(s.rollout.max_prompt_tokens),
            max_attempt_tokens=s.rollout.max_attempt_tokens,
        )
        return jax.device_put(batch, sharding.rows(experiment.mesh)), {}
