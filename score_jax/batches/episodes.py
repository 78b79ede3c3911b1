"""Problems -> sampled and graded episodes, a step at a time.

    dispatched = sampler.dispatch(params, number)     queues the rollout of a step on the device
    graded = sampler.collect(dispatched)              waits for it, and grades

With an `offline_share` some problems' first attempts are written by the reference policy (the base
model) and given: all samples of such a problem go on behind the same one, and only what they write
themselves is learned from. In the batch these rows look like the others, but for the first
attempt's tokens, which are marked as nobody's:

    ours     p p p 1 1 1 i 2 2 2        p prompt, i instruction, 1 and 2: of attempt 1 and 2
    offline  p p p - - - i 2 2 2
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.config.settings import StageSettings
from score_jax.data import pipeline
from score_jax.evaluation.evaluate import grade_rows
from score_jax.experiment import changed
from score_jax.problem import InputError, Problem
from score_jax.rewards import selective
from score_jax.rollout import contexts, episode
from score_jax.run import Run
from score_jax.runtime import hosts, sharding
from score_jax.structs import Episode, Params, PromptBatch

_FIRST = 2**30  # folded into a step's key for first attempts of the reference


@dataclasses.dataclass(frozen=True)
class Dispatched:
    """A step whose rollout is on the device."""

    sampled: Episode
    prompts: PromptBatch  # those of all problems, ours before offline ones
    given: list[str]  # texts of the first attempts of the last problems, offline


@dataclasses.dataclass(frozen=True)
class Graded:
    """A step's episodes with their grades: N of the B rows are this process's own."""

    sampled: Episode  # [B, ...] on the mesh
    reward_BA: np.ndarray
    true_BA: np.ndarray  # float32: attempts whose verdict is true; 0 without selective revision
    measured: dict[str, float]  # of all rows
    row_N: np.ndarray  # which rows are its own
    own: Episode  # [N, ...] numpy
    problems: list[Problem]  # [N]
    texts: list[list[str]]  # [N][A]


class Sampler:
    """The episodes of stage `index` of a recipe; its position in the data can be saved."""

    def __init__(self, run: Run, index: int, *, attempts: int = 0):
        """attempts: 0 takes the stage's own number."""
        s = run.settings
        stage = s.stages[s.recipe[index]]
        self._run = run
        self._settings = run.experiment.episode_settings(attempts=attempts or stage.attempts)
        self._offline = _offline_problems(run, stage)
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

    def skip(self, steps: int) -> None:
        """Goes to the position after that many steps."""
        self._prompts.set_state({**self._prompts.get_state(), "next_batch": steps})

    def dispatch(self, params: Params, number: int, reference: Params | None = None) -> Dispatched:
        """Queues the rollout of step `number` on the device; the next problems are taken.

        reference: who writes offline first attempts.
        """
        return self.sample(params, next(self._prompts), number, reference)

    def sample(
        self,
        params: Params,
        prompts: PromptBatch,
        number: int,
        reference: Params | None = None,
        tokens: int = 0,
    ) -> Dispatched:
        """The rollout of one step; with `tokens`, of attempts that long at most."""
        ours, offline = _split(prompts, len(prompts.tokens) - self._offline)
        key = jax.random.fold_in(self._key, number)
        parts: list[Episode] = []
        given: list[str] = []
        if len(ours.tokens):
            parts.append(self._rollout(self._settings, params, ours, key, tokens))
        if len(offline.tokens):
            written, given = self._behind_first_attempts(params, reference, offline, key, tokens)
            parts.append(written)
        sampled = parts[0] if len(parts) == 1 else self._joined(parts)
        return Dispatched(sampled, prompts, given)

    def _rollout(self, settings, params: Params, prompts: PromptBatch, key, tokens: int) -> Episode:
        limit_QGA = None
        if tokens:
            shape = (len(prompts.tokens), settings.samples, settings.attempts)
            limit_QGA = np.full(shape, tokens, np.int32)
        with self._run.phase("rollout", settings, prompts.tokens.shape):
            return episode.run(
                self._run.experiment.weights(params),
                prompts,
                key,
                settings=settings,
                mesh=self._run.experiment.mesh,
                limit_QGA=limit_QGA,
            )

    def _behind_first_attempts(
        self, params: Params, reference: Params | None, prompts: PromptBatch, key, tokens: int
    ) -> tuple[Episode, list[str]]:
        """Episodes whose first attempt is the reference's, and that attempt's text per problem."""
        s, template = self._settings, self._run.experiment.template
        assert reference is not None, "offline first attempts need the policy that writes them"
        one = dataclasses.replace(s, attempts=1, samples=1, siblings=1)
        first = self._rollout(one, reference, prompts, jax.random.fold_in(key, _FIRST), tokens)
        written = hosts.whole(first)
        behind = contexts.prompts_after(
            written,
            prompts,
            instruction=template.instruction_ids,
            turn_end=template.turn_end_ids,
            columns=prompts.tokens.shape[1]
            + s.max_attempt_tokens
            + len(s.turn_end)
            + len(s.instruction),
            pad_id=s.pad_id,
        )
        rest = dataclasses.replace(s, attempts=s.attempts - 1, siblings=1)
        later = self._rollout(rest, params, behind, key, tokens)
        texts = [row[0] for row in self._run.experiment.texts(written)]
        return contexts.later_attempts(later, jnp.repeat(first.truncated, s.samples, axis=0)), texts

    def _joined(self, parts: list[Episode]) -> Episode:
        rows = sharding.rows(self._run.experiment.mesh)
        return jax.tree.map(lambda *x: jax.device_put(jnp.concatenate(x), rows), *parts)

    def collect(self, dispatched: Dispatched, began: float = 0.0) -> Graded:
        """Waits for the rollout and grades it. Call it when the device has nothing older to do.

        began: when the rollout did, by time.perf_counter; 0: now.

        Each process grades its own rows, and all learn what all rows earned.
        """
        samples, prompts = self._settings.samples, dispatched.prompts
        started = began or time.perf_counter()
        with self._run.watchdog.phase("rollout"):
            own, row_N = hosts.own_rows(dispatched.sampled)
        episode.check(own)
        texts = self._run.experiment.texts(own)
        # Problems with a given first attempt are a step's last.
        first_given = len(prompts.problems) - len(dispatched.given)
        for row, text in zip(row_N, texts, strict=True):
            if row // samples >= first_given:
                text[0] = dispatched.given[row // samples - first_given]
        decoded = time.perf_counter()
        problems = [prompts.problems[row // samples] for row in row_N]
        with self._run.watchdog.phase("grade"):
            reward_BA, true_BA, measured = self._grade(own, row_N, problems, texts)
        rate = measured.pop("generated") / (decoded - started)
        measured |= {
            "prompts_left_out": self._prompts.dropped,  # of the set: too long
            "sec/rollout": decoded - started,
            "sec/grade": time.perf_counter() - decoded,
            "tokens_per_sec/rollout": rate,
        }
        sampled = dispatched.sampled
        return Graded(sampled, reward_BA, true_BA, measured, row_N, own, problems, texts)

    def _grade(
        self, own: Episode, row_N: np.ndarray, problems: list[Problem], texts: list[list[str]]
    ) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Grades this process's rows; of all rows: rewards, true verdicts, what was measured."""
        experiment = self._run.experiment
        reward_NA, _ = grade_rows(experiment, own, problems, texts)
        true_NA = np.zeros(reward_NA.shape, bool)
        if experiment.marks:
            true_NA = selective.true_verdicts(texts, reward_NA, experiment.marks)
        found_N = (reward_NA, true_NA, changed(texts), np.sum(own.attempt > 0, axis=1))
        rows = hosts.in_order(row_N, list(zip(*(x.tolist() for x in found_N), strict=True)))
        reward_BA, true_BA, changed_B, generated_B = map(np.array, zip(*rows, strict=True))
        measured = {"changed": float(np.mean(changed_B)), "generated": int(np.sum(generated_B))}
        if experiment.marks:
            measured["verdict_right"] = float(true_BA[:, 1:].mean())
        return reward_BA.astype(np.float32), true_BA.astype(np.float32), measured


def _offline_problems(run: Run, stage: StageSettings) -> int:
    """How many of a step's problems have a first attempt that is given."""
    total = run.settings.rollout.problems_per_step
    offline = round(stage.offline_share * total)
    parts = sharding.batch_size(run.experiment.mesh)
    if offline % parts or (stage.offline_share and not offline):
        raise InputError(
            f"offline_share={stage.offline_share:g} of config.rollout.problems_per_step={total} is "
            f"{offline} problems, which cannot be split over {parts} devices (mesh data x fsdp): "
            "each must hold the same number, at least one. Choose another share."
        )
    return offline


def _split(prompts: PromptBatch, at: int) -> tuple[PromptBatch, PromptBatch]:
    """The first `at` problems, and the others."""

    def part(of: slice) -> PromptBatch:
        arrays = (prompts.tokens[of], prompts.length[of], prompts.index[of])
        return PromptBatch(*arrays, prompts.problems[of])

    return part(slice(0, at)), part(slice(at, None))
