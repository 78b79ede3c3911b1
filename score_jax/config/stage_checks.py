"""Refuses settings of a stage that cannot work together, or that its objective does not use."""

from score_jax.config.settings import DocumentSettings, Settings, StageSettings
from score_jax.problem import InputError, nearest

LEAST_TEMPERATURE = 0.01  # below, samples are the most likely text but for near ties


def check_stage(s: Settings, index: int, stage: StageSettings, path: str) -> None:
    """Raises: InputError for the first contradiction of stage `index` of the recipe."""
    for field, named in (
        ("start", stage.start),
        ("reference", stage.reference),
        ("collect.policy", stage.collect.policy),
    ):
        if named and named not in ("base", *s.recipe[:index]):
            raise InputError(
                f"{path}.{field}={named!r} must be an earlier stage of config.recipe, or 'base'. "
                f"{nearest(named, ('base', *s.recipe[:index]))}"
            )
    collect = stage.collect
    if bool(collect.filter) != bool(collect.steps) or (collect.filter and stage.objective == "rl"):
        raise InputError(
            f"{path}.collect has filter={collect.filter!r} and steps={collect.steps}, with "
            f"objective={stage.objective!r}. Set both in an SFT stage that collects its documents, "
            "and neither in other stages."
        )
    if collect.filter in ("star", "pair") and s.rollout.attempts < 2:
        raise InputError(
            f"{path}.collect.filter={collect.filter!r} needs second attempts: set "
            "config.rollout.attempts to 2, or the filter to 'first'."
        )
    if not collect.filter and (collect.policy or collect.both_right):
        named = "policy" if collect.policy else "both_right"
        raise InputError(
            f"{path}.collect.{named} is set, but the stage collects no documents. Set "
            f"{path}.collect.filter and steps too, or leave it out."
        )
    if stage.objective == "rl" or collect.filter:
        _check_sampling(s, path)
    if stage.documents != DocumentSettings() and (stage.objective == "rl" or collect.filter):
        raise InputError(
            f"{path}.documents says how the problems' own solutions are learned, but the stage has "
            f"objective={stage.objective!r} and collect.filter={collect.filter!r}. Leave it at its "
            "defaults."
        )
    (_check_documents if stage.objective == "sft" else _check_episodes)(s, stage, path)


def _check_sampling(s: Settings, path: str) -> None:
    rollout = s.rollout
    for name, value, fix in (
        ("temperature", rollout.temperature, "above 0 (the paper: 1.0)"),
        ("top_k", rollout.top_k, "to 2 or more, or to 0 (off)"),
    ):
        if value == 1 if name == "top_k" else value < LEAST_TEMPERATURE:
            raise InputError(
                f"with config.rollout.{name}={value:g} all samples of a problem are equal, so "
                f"{path} cannot learn from them. Set it {fix}."
            )


# Settings that a stage of documents cannot have, with why. Only the defaults of these work.
_OF_SAMPLES = {
    "bonus": "rewards progress between graded attempts, and documents are not graded",
    "discount": "passes rewards on to earlier attempts, and documents are not graded",
    "offline_share": "is a share of the problems that are sampled, and nothing is sampled",
    "verdict": "rewards the verdict of a graded attempt, and documents are not graded",
    "kl_target": "adapts kl_attempt1, and there is no reference whose KL could be measured",
    "reference": "names the reference of the KL terms, and documents have none",
    "kl_estimator": "estimates the KL to a reference, and documents have none",
    "standardize": "divides by the deviation of a problem's samples, and documents are no samples",
    "importance_cap": "compares with the sampler's probabilities, and documents have none",
    "overlong_tokens": "lowers the reward of long attempts, and documents earn none",
    "attempts": "is the number of attempts that are sampled, and nothing is sampled",
}


def _check_documents(s: Settings, stage: StageSettings, path: str) -> None:
    documents = stage.documents
    if documents.share > 1.0 or documents.corrections > 1.0:
        raise InputError(
            f"{path}.documents has share={documents.share:g} and corrections="
            f"{documents.corrections:g}; both are shares, of at most 1."
        )
    if documents.epochs and documents.share != 1.0:
        raise InputError(
            f"{path}.documents has share={documents.share:g} and epochs={documents.epochs:g}, but "
            f"the stage's {stage.steps} steps fix one by the other. Set share to 1 or epochs to 0."
        )
    if documents.corrections and s.rollout.attempts < 2:
        raise InputError(
            f"{path}.documents.corrections={documents.corrections:g} are documents with a second "
            "attempt. Set config.rollout.attempts to 2, or corrections to 0."
        )
    if stage.baseline != "none" or stage.kl_attempt1 or stage.kl_attempt2:
        raise InputError(
            f"{path} trains on documents, which have neither samples to compare nor a reference. "
            "Set its baseline to 'none', and kl_attempt1 and kl_attempt2 to 0."
        )
    for name, why in _OF_SAMPLES.items():
        value, default = getattr(stage, name), StageSettings.__dataclass_fields__[name].default
        if value != default:
            raise InputError(
                f"{path}.{name}={value!r} {why}: the stage's objective is 'sft'. Leave it out "
                f"(its default is {default!r}), or set the objective to 'rl'."
            )
    if stage.truncation == "penalty":
        raise InputError(
            f"{path}.truncation='penalty' lowers the reward of long attempts, and documents earn "
            "none. Set it to 'zero', or to 'mask' to leave truncated attempts out."
        )
    if not stage.reward_attempt1 and not stage.reward_attempt2:
        raise InputError(
            f"{path} has reward_attempt1=0 and reward_attempt2=0, the weights of a document's "
            "attempts, so it learns nothing. Set one of them to 1."
        )
    if (rows := stage.documents_per_step or s.rollout.rows) % (s.memory.micro_batches or 1):
        raise InputError(
            f"{path}.documents_per_step={rows} cannot be split into "
            f"config.memory.micro_batches={s.memory.micro_batches} equal parts. Set "
            "documents_per_step to a multiple of micro_batches."
        )


def _check_episodes(s: Settings, stage: StageSettings, path: str) -> None:
    samples, siblings = s.rollout.samples_per_problem, s.rollout.siblings
    if stage.baseline == "leave_one_out" and samples < 2:
        raise InputError(
            f"{path}.baseline='leave_one_out' compares the samples of a problem, but "
            "config.rollout.samples_per_problem=1. Set that to 2 or more (4 is usual), or the "
            "baseline to 'batch_mean'."
        )
    if siblings > 1 and (samples % siblings or samples == siblings):
        raise InputError(
            f"config.rollout.siblings={siblings} samples share a first attempt, so "
            f"config.rollout.samples_per_problem={samples} must be a multiple of {siblings}, and "
            f"at least {2 * siblings}. Change one of them."
        )
    if (stage.baseline == "sibling") != (siblings > 1) and (
        stage.baseline in ("sibling", "leave_one_out")
    ):
        raise InputError(
            f"{path}.baseline={stage.baseline!r} does not work with config.rollout.siblings="
            f"{siblings}: the baseline 'sibling' compares samples that share their first attempt. "
            "Set siblings to 2 or more with it, and to 1 with other baselines."
        )
    attempts = stage.attempts or s.rollout.attempts
    if stage.bonus and attempts < 2:
        raise InputError(
            f"{path}.bonus={stage.bonus} rewards progress between attempts, but the stage samples "
            "only one. Set the bonus to 0 or attempts to 2."
        )
    if stage.bonus and stage.standardize:
        raise InputError(
            f"{path}.standardize divides advantages by their standard deviation, which cancels "
            f"the bonus of {stage.bonus:g}: all that it does to later attempts is to change their "
            "scale. Set standardize to False, or the bonus to 0."
        )
    if stage.discount > 1.0:
        raise InputError(f"{path}.discount={stage.discount} must be between 0 and 1.")
    if attempts > s.rollout.attempts:
        raise InputError(
            f"{path}.attempts={attempts} is more than config.rollout.attempts="
            f"{s.rollout.attempts}, which is the limit of all stages. Raise the latter."
        )
    if stage.offline_share > 1.0 or (stage.offline_share and attempts < 2):
        raise InputError(
            f"{path}.offline_share={stage.offline_share:g} must be between 0 and 1, and above 0 it "
            f"needs 2 attempts or more (now {attempts}): it is the share of problems whose first "
            "attempt the reference writes."
        )
    problems = s.rollout.problems_per_step
    if stage.offline_share and not round(stage.offline_share * problems):
        raise InputError(
            f"{path}.offline_share={stage.offline_share:g} of config.rollout.problems_per_step="
            f"{problems} is no problem at all. Set it to at least {1 / problems:g}, or to 0."
        )
    _check_signal(s, stage, path, attempts)
    if (stage.truncation == "penalty") != bool(stage.overlong_tokens):
        raise InputError(
            f"{path}.truncation={stage.truncation!r} with overlong_tokens={stage.overlong_tokens}: "
            "overlong_tokens is the length over which the penalty grows. Set both or neither."
        )
    if stage.overlong_tokens > s.rollout.max_attempt_tokens:
        raise InputError(
            f"{path}.overlong_tokens={stage.overlong_tokens} is more than config.rollout."
            f"max_attempt_tokens={s.rollout.max_attempt_tokens}, so even the shortest attempt "
            "would pay. Set it to a part of that limit."
        )
    if stage.kl_target and not stage.kl_attempt1:
        raise InputError(
            f"{path}.kl_target={stage.kl_target:g} adapts kl_attempt1 by factors, but kl_attempt1 "
            "is 0. Set it to a first value (the paper: 0.1)."
        )
    if stage.kl_target and round(stage.offline_share * problems) == problems:
        raise InputError(
            f"{path}.kl_target={stage.kl_target:g} adapts to the KL of first attempts that the "
            f"policy writes, and with offline_share={stage.offline_share:g} it writes none. Set "
            "kl_target to 0, or the share below 1."
        )
    if stage.documents_per_step:
        raise InputError(
            f"{path}.documents_per_step={stage.documents_per_step} is of stages that learn "
            "documents (objective='sft'); this one samples config.rollout.problems_per_step x "
            "samples_per_problem rows. Leave it out."
        )
    if path == "config.stages.base" and (
        stage.kl_attempt1 or stage.kl_attempt2 or stage.offline_share
    ):
        raise InputError(
            f"{path} trains the reference itself, so there is none yet for its KL terms or its "
            "offline attempts. Set kl_attempt1, kl_attempt2 and offline_share to 0, or give the "
            "stage another name than 'base': then the loaded weights are the reference."
        )


def _check_signal(s: Settings, stage: StageSettings, path: str, attempts: int) -> None:
    """Refuses settings of rewards and baselines that reach no attempt."""
    if attempts < 2:
        for name in ("discount", "verdict"):
            if getattr(stage, name):
                raise InputError(
                    f"{path}.{name}={getattr(stage, name):g} is about later attempts, but the "
                    "stage samples only one. Set it to 0, or attempts to 2."
                )
        if s.rollout.siblings > 1:
            raise InputError(
                f"config.rollout.siblings={s.rollout.siblings} samples share their first attempt, "
                f"and {path} samples no other: they would be copies. Set siblings to 1, or "
                "attempts to 2."
            )
    if stage.early_attempts > attempts:
        raise InputError(
            f"{path}.early_attempts={stage.early_attempts} is more than the {attempts} attempts "
            "that the stage samples. Lower it."
        )
    # Where the whole run samples single attempts, a Stage I of the recipe trains nothing by intent.
    none_later = s.rollout.attempts > 1 and attempts <= stage.early_attempts
    later = 0.0 if none_later else stage.reward_attempt2
    if not (stage.reward_attempt1 or later or stage.bonus or stage.verdict):
        raise InputError(
            f"no reward reaches any attempt of {path}: reward_attempt1={stage.reward_attempt1:g} "
            f"is that of attempt 1 to {stage.early_attempts} (early_attempts), reward_attempt2="
            f"{stage.reward_attempt2:g} that of later ones, of {attempts} in all, and bonus and "
            "verdict are 0. Set the weight of an attempt that is sampled."
        )
    if stage.baseline == "batch_mean" and s.rollout.rows == 1:
        raise InputError(
            f"{path}.baseline='batch_mean' compares the samples of a step, and a step has one: "
            "all advantages would be 0. Raise config.rollout.problems_per_step or "
            "samples_per_problem, or set the baseline to 'none'."
        )
    if stage.standardize and s.rollout.samples_per_problem < 2:
        raise InputError(
            f"{path}.standardize divides by the deviation of a problem's samples, and "
            "config.rollout.samples_per_problem=1. Set that to 2 or more, or standardize to False."
        )
