"""Settings that cannot work together are refused: what, why it matters, what to set.

Here is what the settings alone show. What needs the model or its tokenizer is in experiment.py.
"""

import re

from score_jax.config.settings import Settings, StageSettings
from score_jax.problem import InputError, nearest


def check(s: Settings) -> None:
    """Raises: InputError naming the first contradiction."""
    if not s.recipe:
        raise InputError("config.recipe is empty: name at least one of config.stages.")
    for name in s.recipe:
        if name not in s.stages:
            raise InputError(
                f"config.recipe names a stage '{name}' that config.stages lacks. "
                f"{nearest(name, s.stages)}"
            )
        if not name.isidentifier():
            raise InputError(f"a stage's name becomes a folder's: {name!r} is no plain word.")
    if len(set(s.recipe)) != len(s.recipe):
        raise InputError(
            f"config.recipe={s.recipe} names a stage twice; checkpoints and evaluations are kept "
            "by stage name. Give the second one a name of its own in config.stages."
        )
    if "base" in s.recipe[1:]:
        raise InputError("a stage named 'base' makes the base model and must come first.")
    for name, source in s.problems.mixture.items():
        if not source.name:
            raise InputError(
                f"config.problems.mixture.{name}.name is empty, so there is nothing to mix in. Set "
                "it to a problem set, or take the entry out."
            )
    if s.problems.mixture and s.problems.curriculum_steps:
        raise InputError(
            "config.problems.curriculum_steps orders the problems by level, and levels of the "
            "several sets of config.problems.mixture do not compare. Set it to 0, or the mixture "
            "to {}."
        )
    rows = s.rollout.problems_per_step * s.rollout.samples_per_problem
    if rows % (s.memory.micro_batches or 1):
        raise InputError(
            f"{s.rollout.problems_per_step} problems x {s.rollout.samples_per_problem} samples = "
            f"{rows} rows cannot be split into config.memory.micro_batches="
            f"{s.memory.micro_batches} equal parts. Set it to a divisor of {rows}."
        )
    if s.rollout.top_p > 1.0:
        raise InputError(f"config.rollout.top_p={s.rollout.top_p} is a share: at most 1.")
    try:
        re.compile(s.model.lora.targets)
    except re.error as error:
        raise InputError(
            f"config.model.lora.targets={s.model.lora.targets!r} is no regular expression: {error}."
        ) from None
    if s.rewards.function and not re.fullmatch(r"[\w.]+:\w+", s.rewards.function):
        raise InputError(
            f"config.rewards.function={s.rewards.function!r} must be 'module:function', such as "
            "'examples.rewards.conversation:rubric'."
        )
    for i, name in enumerate(s.recipe):
        _check_stage(s, i, s.stages[name], f"config.stages.{name}")


def _check_stage(s: Settings, index: int, stage: StageSettings, path: str) -> None:
    for field, named in (
        ("start", stage.start),
        ("reference", stage.reference),
        ("collect.policy", stage.collect.policy),
    ):
        if named and named not in ("base", *s.recipe[:index]):
            raise InputError(
                f"{path}.{field}={named!r} must be a stage before it in config.recipe, or 'base'. "
                f"{nearest(named, ('base', *s.recipe[:index]))}"
            )
    collect = stage.collect
    if bool(collect.filter) != bool(collect.steps) or (collect.filter and stage.objective == "rl"):
        raise InputError(
            f"{path}.collect with filter={collect.filter!r} and steps={collect.steps} collects "
            f"nothing that objective={stage.objective!r} can learn. An SFT stage on collected "
            "documents sets both; all others neither."
        )
    if collect.filter and s.rollout.attempts < 2:
        raise InputError(f"{path}.collect needs second attempts: set config.rollout.attempts to 2.")
    if (stage.objective == "rl" or collect.filter) and s.rollout.temperature == 0.0:
        raise InputError(
            "config.rollout.temperature=0 samples every episode of a problem alike, so "
            f"{path} would learn nothing. Set it above 0 (the paper: 1.0)."
        )
    (_check_documents if stage.objective == "sft" else _check_episodes)(s, stage, path)


def _check_documents(s: Settings, stage: StageSettings, path: str) -> None:
    if stage.baseline != "none" or stage.kl_attempt1 or stage.kl_attempt2:
        raise InputError(
            f"{path} learns documents, which have neither samples to compare nor a "
            "reference. Set its baseline to 'none', kl_attempt1 and kl_attempt2 to 0."
        )
    rows = s.rollout.problems_per_step * s.rollout.samples_per_problem
    if (documents := stage.documents_per_step or rows) % (s.memory.micro_batches or 1):
        raise InputError(
            f"{path}.documents_per_step={documents} cannot be split into "
            f"config.memory.micro_batches={s.memory.micro_batches} equal parts."
        )


def _check_episodes(s: Settings, stage: StageSettings, path: str) -> None:
    samples, siblings = s.rollout.samples_per_problem, s.rollout.siblings
    if stage.baseline == "leave_one_out" and samples < 2:
        raise InputError(
            f"{path}.baseline='leave_one_out' compares samples of one problem, and "
            "config.rollout.samples_per_problem=1. Set that to 2 or more (4 is usual), or "
            "the baseline to 'batch_mean'."
        )
    if siblings > 1 and (samples % siblings or samples == siblings):
        raise InputError(
            f"config.rollout.siblings={siblings} samples share a first attempt, and "
            f"config.rollout.samples_per_problem={samples} must hold two such families or more. "
            f"Set it to a multiple of {siblings}, at least {2 * siblings}."
        )
    if (stage.baseline == "sibling") != (siblings > 1) and (
        stage.baseline in ("sibling", "leave_one_out")
    ):
        raise InputError(
            f"{path}.baseline={stage.baseline!r} and config.rollout.siblings={siblings}: samples "
            "that share their first attempt are compared among themselves by the baseline "
            "'sibling', and only they. Set siblings to 2 or more with it, or to 1 without."
        )
    attempts = stage.attempts or s.rollout.attempts
    if stage.bonus and attempts < 2:
        raise InputError(
            f"{path}.bonus={stage.bonus} rewards progress between attempts, and the stage "
            "samples only one. Set the bonus to 0 or attempts to 2."
        )
    if stage.bonus and stage.standardize:
        raise InputError(
            f"{path}.standardize divides advantages by their standard deviation, which cancels "
            f"the bonus of {stage.bonus:g}: at discount 0 the bonus is a change of scale. Set "
            "standardize to False, or the bonus to 0."
        )
    if stage.discount > 1.0:
        raise InputError(f"{path}.discount={stage.discount} must be between 0 and 1.")
    if attempts > s.rollout.attempts:
        raise InputError(
            f"{path}.attempts={attempts} is more than config.rollout.attempts="
            f"{s.rollout.attempts}, which sizes rows and evaluation. Raise the latter."
        )
    if stage.offline_share > 1.0 or (stage.offline_share and attempts < 2):
        raise InputError(
            f"{path}.offline_share={stage.offline_share:g} is the share of problems whose first "
            f"attempt is given and whose later ones are trained; the stage has {attempts} "
            "attempts. Set it between 0 and 1, and attempts to 2 or more."
        )
    if (stage.truncation == "penalty") != bool(stage.overlong_tokens):
        raise InputError(
            f"{path}.truncation={stage.truncation!r} with overlong_tokens={stage.overlong_tokens}: "
            "the penalty grows over that many tokens before the limit. Set both, or neither."
        )
    if stage.kl_target and not stage.kl_attempt1:
        raise InputError(
            f"{path}.kl_target={stage.kl_target:g} is reached by scaling kl_attempt1, which is 0. "
            "Set kl_attempt1 to where it shall begin (the paper: 0.1)."
        )
