"""Batches of an RL stage: problems -> rollout -> grade, a step at a time.

    dispatched = episodes.dispatch(params, number)    queues the rollout of a step on the device
    batch, measured = episodes.batch(dispatched)      waits for it, and grades

With an `offline_share` the reference policy (the base model) writes the first attempts of some
problems. All samples of such a problem continue from the same first attempt, and only what they
write themselves is learned. In the batch these rows look like the others, except that no attempt
id marks the tokens of the first attempt:

    ours     p p p 1 1 1 i 2 2 2        p prompt, i instruction, 1 and 2: of attempt 1 and 2
    offline  p p p - - - i 2 2 2
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import grading
from score_jax.batches import pass_rates, samples
from score_jax.data import pipeline
from score_jax.grading import OwnRows, changed
from score_jax.learner import sampled_logprobs, step
from score_jax.learner.step import TrainState
from score_jax.problem import InputError
from score_jax.rewards import selective
from score_jax.rollout import contexts, episode
from score_jax.run import Run, Stage
from score_jax.runtime import hosts, sharding
from score_jax.structs import Batch, Episode, Params, PromptBatch, SampledLogProbs
from score_jax.workdir.diagnosis import NotFinite

_FIRST = 2**30  # folded into a step's key for first attempts of the reference


@dataclasses.dataclass(frozen=True)
class Dispatched:
    """A step whose rollout is on the device."""

    sampled: Episode
    prompts: PromptBatch  # of all problems: first ours, then offline ones
    given: list[str]  # texts of the first attempts of the last problems, offline
    number: int  # of the step
    logprobs: SampledLogProbs | None = None  # of the KL terms; None in a stage without any


@dataclasses.dataclass(frozen=True)
class Graded:
    """A step's episodes with their grades."""

    sampled: Episode  # [B, ...] on the mesh
    reward_BA: np.ndarray
    solved_BA: np.ndarray  # bool
    true_BA: np.ndarray  # float32: attempts whose verdict is true; 0 without selective revision
    failed_B: np.ndarray  # bool: rows whose reward function hung or died
    measured: dict[str, float]  # of all rows
    own: OwnRows  # this process's


class Episodes:
    """The episodes of an RL stage; its position in the data can be saved."""

    def __init__(self, run: Run, stage: Stage, reference: Params | None = None):
        """Args:

        reference: of the KL terms; it also writes offline first attempts.
        """
        self._run, self._stage, self._reference = run, stage, reference
        self.taken: list[tuple[int, dict[str, Any]]] = []
        self._settings = run.experiment.episode_settings(attempts=stage.settings.attempts)
        self._offline = _offline_problems(run, stage)
        s = run.settings
        # Rows whose first attempt is the policy's own; they come before the offline ones.
        self._ours = (s.rollout.problems_per_step - self._offline) * s.rollout.samples_per_problem
        self._prompts = problems_of(run, stage)

    def get_state(self) -> dict[str, Any]:
        """The position in the data, JSON-able."""
        return self._prompts.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes from a saved position."""
        self._prompts.set_state(state)

    def prepare(self, state: TrainState) -> None:
        """Compiles rollout and update for every width that a batch may have, if there are several.

        With one width the first step compiles what all steps need.
        """
        rollout = self._run.settings.rollout
        if not rollout.prompt_buckets:
            return
        for width in sorted({*rollout.prompt_buckets, rollout.max_prompt_tokens}):
            prompts = self._prompts.blank(width)
            dispatched = self._read(state.params, self._sample(state.params, prompts, 0, tokens=1))
            zero_BA = np.zeros(dispatched.sampled.truncated.shape, np.float32)
            batch = self._batch(dispatched, zero_BA, zero_BA, np.zeros(len(zero_BA), bool))
            base = self._run.experiment.base
            settings = self._stage.settings
            step.lower(state, self._reference, batch, stage=settings, base=base).compile()

    def dispatch(self, params: Params, number: int) -> Dispatched:
        """Queues the rollout of step `number` on the device; takes the next problems.

        The log-probs of the KL terms are queued behind it, and so run while it is graded.
        """
        return self._read(params, self._sample(params, next(self._prompts), number))

    def batch(self, dispatched: Dispatched, began: float = 0.0) -> tuple[Batch, dict[str, float]]:
        """Waits for the rollout and grades it: the batch of the update, and what was measured.

        began: as in `graded`.
        """
        graded = self.graded(dispatched, began)
        found = (graded.reward_BA, graded.true_BA, graded.failed_B)
        return self._batch(dispatched, *found), graded.measured

    def graded(self, dispatched: Dispatched, began: float = 0.0) -> Graded:
        """Waits for the rollout and grades it. Call it when the device has nothing older to do.

        Each process grades its own rows, and all get the rewards of all rows.

        began: when the rollout began, by the run's clock; 0: now.
        """
        experiment, clock = self._run.experiment, self._run.clock
        started = began or clock.now()
        with self._run.waits("rollout"):
            own = grading.own_rows(
                experiment,
                dispatched.sampled,
                dispatched.prompts.problems,
                samples=self._settings.samples,
                given=dispatched.given,
            )
        self._check(own, dispatched)
        decoded = clock.now()
        self.taken = []
        with self._run.waits("grade"):
            reward_BA, solved_BA, true_BA, failed_B, measured = self._grade(own, dispatched.number)
        rate = measured.pop("generated") / (decoded - started)
        measured |= {
            "prompts_left_out": self._prompts.dropped,  # of the set: too long
            "sec/rollout": decoded - started,
            "sec/grade": clock.now() - decoded,
            "tokens_per_sec/rollout": rate,
        }
        found = (reward_BA, solved_BA, true_BA, failed_B)
        return Graded(dispatched.sampled, *found, measured, own)

    def _check(self, own: OwnRows, dispatched: Dispatched) -> None:
        """Raises: NotFinite, on all processes, if the sampler's log-probs are wrong on one."""
        wrong = ""
        try:
            episode.check(own.rows)
        except ValueError as error:
            wrong = str(error)
        if wrong := next(filter(None, hosts.exchange(wrong)), ""):
            zero_BA = np.zeros(dispatched.sampled.truncated.shape, np.float32)
            none_B = np.zeros(len(zero_BA), bool)
            raise NotFinite(wrong, self._batch(dispatched, zero_BA, zero_BA, none_B))

    def _sample(
        self, params: Params, prompts: PromptBatch, number: int, tokens: int = 0
    ) -> Dispatched:
        """The rollout of a step. tokens: the limit of an attempt; 0: that of the settings."""
        at = len(prompts.tokens) - self._offline
        ours, offline = prompts.part(slice(0, at)), prompts.part(slice(at, None))
        key = jax.random.fold_in(self._stage.key, number)
        parts: list[Episode] = []
        given: list[str] = []
        if len(ours.tokens):
            parts.append(self._rollout(self._settings, params, ours, key, tokens))
        if len(offline.tokens):
            written, given = self._after_first_attempts(params, offline, key, tokens)
            parts.append(written)
        if len(parts) == 1:
            return Dispatched(parts[0], prompts, given, number)
        rows = sharding.rows(self._run.experiment.mesh)
        joined = jax.tree.map(lambda *x: jax.device_put(jnp.concatenate(x), rows), *parts)
        return Dispatched(joined, prompts, given, number)

    def _read(self, params: Params, dispatched: Dispatched) -> Dispatched:
        """With the log-probs of the KL terms, if the stage has any."""
        stage, experiment = self._stage.settings, self._run.experiment
        if self._reference is None or stage.objective != "rl":
            return dispatched
        rows = dispatched.sampled
        with (
            self._run.phase("update", "log-probs", self._stage.name, rows.tokens.shape[1]),
            jax.profiler.TraceAnnotation("log_probs"),
        ):
            found = sampled_logprobs.of(
                params,
                self._reference,
                rows,
                experiment.learner_settings(stage),
                base=experiment.base,
                hidden=step.needs_hidden(stage),
            )
        return dataclasses.replace(dispatched, logprobs=found)

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

    def _after_first_attempts(
        self, params: Params, prompts: PromptBatch, key, tokens: int
    ) -> tuple[Episode, list[str]]:
        """Episodes whose first attempt the reference writes; that attempt's text per problem."""
        s, reference = self._settings, self._reference
        assert reference is not None, "offline first attempts need the policy that writes them"
        one = dataclasses.replace(s, attempts=1, samples=1, siblings=1)
        first = self._rollout(one, reference, prompts, jax.random.fold_in(key, _FIRST), tokens)
        written = hosts.whole(first)
        after_first = contexts.prompts_after(
            written,
            prompts,
            instruction=s.before(2),
            turn_end=s.turn_end,
            columns=prompts.tokens.shape[1]
            + s.max_attempt_tokens
            + len(s.turn_end)
            + (prompts.instruction_tokens or len(s.before(2))),
            pad_id=s.pad_id,
            end_ids=s.end_ids if s.close_stopped else (),
        )
        rest = dataclasses.replace(s.after_given(1), siblings=1)
        later = self._rollout(rest, params, after_first, key, tokens)
        texts = [row[0] for row in self._run.experiment.texts(written)]
        return contexts.later_attempts(later, jnp.repeat(first.truncated, s.samples, axis=0)), texts

    def _grade(self, own: OwnRows, number: int) -> tuple[Any, ...]:
        """Grades this process's rows; of all rows: rewards, solved, true verdicts, whether their
        reward function failed, measured."""
        experiment = self._run.experiment
        grades = grading.grade(experiment, own, stage=self._stage.name, step=number)
        if samples.are_taken(number, self._run.settings.logging.samples_every):
            self.taken = samples.taken(own, grades, self._settings.samples)
        true_NA = np.zeros(grades.reward_NA.shape, bool)
        if experiment.marks:
            true_NA = selective.true_verdicts(own.texts, grades.solved_NA, experiment.marks)
        written_N = np.sum(own.rows.attempt > 0, axis=1)
        arrays_N = (
            *(grades.reward_NA, grades.solved_NA, true_NA, changed(own.texts), written_N),
            *(own.rows.truncated, grading.unlike(own, grades), *grades.of_terms.values()),
        )
        lists_N = [grades.reasons, grades.failed, *(x.tolist() for x in arrays_N)]
        reasons_BA, whys, *found = zip(*own.in_order(list(zip(*lists_N, strict=True))), strict=True)
        failed_B = np.array(whys, object)
        reward_BA, solved_BA, true_BA, changed_B, generated_B, cut_BA, unlike_B, *of_terms = map(
            np.array, found
        )
        measured = {"changed": float(np.mean(changed_B)), "generated": int(np.sum(generated_B))}
        for a, solved_N in self._own_of(solved_BA):
            measured[f"solved/attempt{a}"] = float(np.mean(solved_N))
        for a, reasons_N in self._own_of(np.array(reasons_BA, object)):
            shares = grading.reason_shares(reasons_N[:, None].tolist())["attempt1"]
            measured |= {f"reason/{name}/attempt{a}": share for name, share in shares.items()}
            unread = np.isin(reasons_N.astype(str), grading.UNREADABLE)
            measured[f"unreadable/attempt{a}"] = float(np.mean(unread))
        if not np.isnan(unlike_B).all():  # of rows that have an equal one
            measured["inconsistent"] = float(np.nanmean(unlike_B))
        if experiment.marks:
            measured["verdict_right"] = float(true_BA[:, 1:].mean())
        for name, value_BA in zip(grades.of_terms, of_terms, strict=True):
            for a, value_N in self._own_of(value_BA):
                if not np.isnan(value_N).all():
                    measured[f"reward/{name}/attempt{a}"] = float(np.nanmean(value_N))
        if grades.of_terms:
            measured["function_failed"] = float(np.mean(failed_B != ""))
            for a, cut_N in self._own_of(cut_BA):  # masked rows are not truncated ones
                measured[f"truncated/attempt{a}"] = float(np.mean(cut_N))
            self._warn(reward_BA, failed_B, number)
        failed_B = failed_B != ""
        reward_BA, true_BA = reward_BA.astype(np.float32), true_BA.astype(np.float32)
        return reward_BA, solved_BA, true_BA, failed_B, measured

    def _own_of(self, value_BA: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(attempt, values of the rows whose attempt the policy wrote), where there are any."""
        for a, value_B in enumerate(value_BA.T, start=1):
            if len(value_N := value_B[: self._ours] if a == 1 else value_B):
                yield a, value_N

    def _warn(self, reward_BA: np.ndarray, failed_B: np.ndarray, number: int) -> None:
        """Logs, once in a run each, failed calls, and a 0 that is better than a wrong answer."""
        rewards, where = self._run.settings.rewards, f"{self._stage.name}, step {number}"
        zero = [name for name in ("truncated", "failed") if getattr(rewards, name) == 0.0]
        if self._stage.settings.truncation == "mask":
            zero = []
        warnings = {}
        if reward_BA.min() < 0 and zero:
            warnings["negative"] = (
                f"WARNING in {where}: an attempt earned {reward_BA.min():g}, but attempts that are "
                f"{' or '.join(zero)} earn 0, which is better, and may be learned. Set "
                f"{' and '.join(f'config.rewards.{name}' for name in zero)} to the lowest reward, "
                "or the stage's truncation to 'mask'."
            )
        if why := next(filter(None, failed_B), ""):
            warnings["failed"] = (
                f"WARNING in {where}: the reward function failed for {np.sum(failed_B != '')} of "
                f"{len(failed_B)} rows ({why}); they earn config.rewards.failed={rewards.failed:g}."
                " Later ones are only counted: function_failed in metrics.jsonl."
            )
        for name, text in warnings.items():
            if name not in self._run.warned:
                self._run.warned.add(name)
                self._run.log.say(text)

    def _batch(
        self,
        dispatched: Dispatched,
        reward_BA: np.ndarray,
        true_BA: np.ndarray,
        failed_B: np.ndarray,
    ) -> Batch:
        rows, marks = sharding.rows(self._run.experiment.mesh), self._run.experiment.marks
        sampled, truncated = dispatched.sampled, dispatched.sampled.truncated
        if self._stage.settings.truncation == "mask" and failed_B.any():
            failed_BA = np.broadcast_to(failed_B[:, None], reward_BA.shape)
            truncated = truncated | sharding.place(failed_BA, rows)
        given_B = np.arange(len(reward_BA)) >= self._ours
        return Batch(
            tokens=sampled.tokens,
            attempt=sampled.attempt,
            logp=sampled.logp,
            length=sampled.length,
            reward=sharding.place(reward_BA, rows),
            truncated=truncated,
            true_verdict=sharding.place(true_BA, rows) if marks else None,
            given=sharding.place(given_B, rows) if self._offline else None,
            logprobs=dispatched.logprobs,
        )


def shapes(run: Run, stage: Stage) -> Batch | None:
    """What `Episodes.batch` returns, as shapes; None where steps differ in them."""
    experiment, rollout = run.experiment, run.settings.rollout
    if rollout.prompt_buckets:
        return None
    settings = experiment.episode_settings(attempts=stage.settings.attempts)
    columns = settings.row_tokens(rollout.max_prompt_tokens, experiment.instruction_tokens)
    rows = sharding.rows(experiment.mesh)
    made: Any = functools.partial(jax.ShapeDtypeStruct, sharding=rows)
    by_token, by_attempt = (rollout.rows, columns), (rollout.rows, settings.attempts)
    return Batch(
        tokens=made(by_token, np.int32),
        attempt=made(by_token, np.int32),
        logp=made(by_token, np.float32),
        length=made((rollout.rows,), np.int32),
        reward=made(by_attempt, np.float32),
        truncated=made(by_attempt, np.bool_),
        true_verdict=made(by_attempt, np.float32) if experiment.marks else None,
        given=made((rollout.rows,), np.bool_) if _offline_problems(run, stage) else None,
    )


def problems_of(run: Run, stage: Stage) -> pipeline.PromptIterator:
    """The problems of a stage's steps, in order. Measures pass rates if the settings ask for it."""
    s, template = run.settings, run.experiment.template
    assert run.training
    return pipeline.batches(
        run.training.problems,
        template.first_turn,
        batch=s.rollout.problems_per_step,
        max_prompt_tokens=s.rollout.max_prompt_tokens,
        pad_id=template.tokenizer.pad_id,
        seed=s.seed + 1000 * stage.index,  # another order in every stage
        bucket_sizes=s.rollout.prompt_buckets,
        parts=run.training.parts,
        curriculum_steps=s.problems.curriculum_steps,
        steps_before=stage.rl_steps_before,
        prompts=run.training.prompts,
        wanted=pass_rates.wanted(run) if stage.name != "base" else None,
        turn=template.turn,
    )


def _offline_problems(run: Run, stage: Stage) -> int:
    """How many of a step's problems have a first attempt that is given."""
    total, share = run.settings.rollout.problems_per_step, stage.settings.offline_share
    offline = round(share * total)
    parts = sharding.batch_size(run.experiment.mesh)
    if offline % parts:
        raise InputError(
            f"offline_share={share:g} of config.rollout.problems_per_step={total} is "
            f"{offline} problems, which cannot be split over {parts} devices (mesh data x fsdp): "
            "each must hold the same number. Choose another share."
        )
    return offline
