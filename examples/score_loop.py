"""SCoRe written out: Stage I and Stage II as one loop over the package's functions.

    python -m examples.score_loop [--workdir=runs/score_loop] [--seed=0] [--share=1.0]

`python -m score_jax.main` does the same with checkpoints, resuming, alarms and a page; read
score_jax/loop.py for that. This file is for readers and for those who want another loop. The task
and its base model are the quickstart's (configs/quickstart.py): a minute or two on two CPU cores.

Source of the method: Kumar et al. 2024, arXiv 2409.12917, sections 4.1 to 4.3.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp

import score_jax as sj
from configs import quickstart
from score_jax import grading
from score_jax.config.build import resolve
from score_jax.config.settings import StageSettings
from score_jax.data import pipeline
from score_jax.data import problems as problem_sets
from score_jax.evaluation.evaluate import evaluate
from score_jax.experiment import Experiment
from score_jax.learner import sampled_logprobs, step
from score_jax.problem import Problem
from score_jax.rollout import episode
from score_jax.runtime import sharding
from score_jax.structs import Batch, Params


def main(workdir: str, seed: int, share: float) -> float:
    """Both stages from a base model; returns Δ, the gain from the first attempt to the second.

    share: of the steps of every stage, the base model's too; for a quick look.
    """
    # A base model that rarely corrects itself: supervised training on the quickstart's documents.
    settings = _shortened(resolve(quickstart.get_config("base")), share, seed)
    base = sj.train(settings, workdir=workdir).folder

    # The method is two values of one dataclass. Stage I: reward of the second attempt alone, the
    # first held to the base model by a strong KL (beta_2). Stage II: both rewarded, and the second
    # paid alpha times its progress over the first.
    settings = _shortened(resolve(quickstart.get_config("score")), share, seed)
    model = dataclasses.replace(settings.model, source=str(base))
    experiment = Experiment.open(dataclasses.replace(settings, model=model))
    training = problem_sets.for_training(settings.problems, seed).problems
    held_out = problem_sets.for_evaluation(settings.problems, seed)[: settings.evaluation.problems]

    params = experiment.source_params()
    reference = jax.tree.map(jnp.copy, params)  # the frozen policy of the KL terms
    report(experiment, "base", params, held_out)
    for number, name in enumerate(("stage1", "stage2"), start=1):
        key = jax.random.fold_in(jax.random.key(seed), number)
        params = train_stage(experiment, settings.stages[name], params, reference, training, key)
        delta = report(experiment, name, params, held_out)
    return delta


def train_stage(
    experiment: Experiment,
    stage: StageSettings,
    params: Params,
    reference: Params,
    problems: list[Problem],
    key: jax.Array,
) -> Params:
    """One stage: sample, grade, update. `params` are donated to the first update.

    Shapes: Q problems of a step, G samples of each, B = Q * G rows of T tokens, A attempts.
    """
    rollout, rows = experiment.settings.rollout, sharding.rows(experiment.mesh)
    batches = pipeline.batches(  # endless, shuffled; each holds Q tokenised problems
        problems,
        experiment.template.first_turn,
        batch=rollout.problems_per_step,
        max_prompt_tokens=rollout.max_prompt_tokens,
        pad_id=experiment.template.tokenizer.pad_id,
        seed=experiment.settings.seed,
    )
    sampling, learning = experiment.episode_settings(), experiment.learner_settings(stage)
    state = experiment.first_state(stage, params)
    for number in range(1, stage.steps + 1):
        prompts = next(batches)

        # G episodes of each problem: attempt 1, the instruction, attempt 2, in one row of ids.
        # Every draw is addressed by (key, problem, sample, column), so that a step can be repeated.
        sampled = episode.run(
            experiment.weights(state.params),
            prompts,
            jax.random.fold_in(key, number),
            settings=sampling,
            mesh=experiment.mesh,
        )

        # What the frozen base model thinks of the sampled tokens, for the KL in the reward. It is
        # queued now, so that the device reads while the host grades.
        logprobs = sampled_logprobs.of(
            state.params, reference, sampled, learning, base=experiment.base, hidden=False
        )

        # One reward for every attempt: reward_BA.
        own = grading.own_rows(
            experiment, sampled, prompts.problems, samples=rollout.samples_per_problem
        )
        reward_BA = grading.grade(experiment, own).reward_NA

        # rl/shaping.py:   attempt 1: w_1 r_1 - beta KL_1     attempt 2: r_2 + alpha (r_2 - r_1)
        #                  - beta KL_2
        # rl/advantages.py: less the mean of the other samples of the same problem and attempt
        # rl/losses.py:     -advantage * log-prob of that attempt's tokens, and of no others
        batch = Batch(
            tokens=sampled.tokens,
            attempt=sampled.attempt,
            logp=sampled.logp,
            length=sampled.length,
            reward=sharding.place(reward_BA, rows),
            truncated=sampled.truncated,
            logprobs=logprobs,
        )
        state, metrics = step.train_step(state, reference, batch, stage=stage, base=experiment.base)
        if number % 25 == 0 or number == stage.steps:
            shown = {name: float(metrics[name]) for name in ("reward/attempt1", "reward/attempt2")}
            print(f"step {number}/{stage.steps}", *(f"{k} {v:.3f}" for k, v in shown.items()))
    return state.params


def report(experiment: Experiment, name: str, params: Params, problems: list[Problem]) -> float:
    """Greedy accuracy of both attempts on held-out problems; returns Δ."""
    found = evaluate(experiment, experiment.weights(params), problems).metrics
    low, high = found["interval"]["delta"]
    print(
        f"{name}: attempt 1 {found['accuracy_attempt1']:.3f}, attempt 2 "
        f"{found['accuracy_attempt2']:.3f}, delta {found['delta']:+.3f} [{low:+.3f}, {high:+.3f}]"
    )
    return found["delta"]


def _shortened(settings, share: float, seed: int):
    """The settings with another seed, and with a share of each stage's steps."""
    stages = {
        name: dataclasses.replace(stage, steps=max(1, round(share * stage.steps)))
        for name, stage in settings.stages.items()
    }
    return dataclasses.replace(settings, stages=stages, seed=seed)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", default="runs/score_loop", help="of the base model's run")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--share", type=float, default=1.0, help="of the steps of every stage")
    main(**vars(flags.parse_args()))
