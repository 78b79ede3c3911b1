"""Refuses settings that cannot work together: what is wrong, why it matters, what to set.

These checks need the settings alone. Checks that need the model or its tokenizer are in
experiment.py.
"""

import re

from score_jax.config.settings import DocumentSettings, RewardSettings, Settings, StageSettings
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
            raise InputError(
                f"the stage name {name!r} cannot be a folder's name. Use letters, digits and '_'."
            )
    if len(set(s.recipe)) != len(s.recipe):
        raise InputError(
            f"config.recipe={s.recipe} names a stage twice, but checkpoints and evaluations "
            "are kept by stage name. Give the second one another name in config.stages."
        )
    if "base" in s.recipe[1:]:
        raise InputError(
            f"config.recipe={s.recipe}: a stage named 'base' trains the base model, so it must be "
            "the first. Move it, or rename it."
        )
    _check_prompt(s)
    for name, source in s.problems.mixture.items():
        if not source.name:
            raise InputError(
                f"config.problems.mixture.{name}.name is empty, so it adds no problems. Set it "
                "to a problem set, or remove the entry."
            )
    for name in s.problems.tests:
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(
                f"config.problems.tests has a set named {name!r}, which becomes part of the names "
                "of files. Use letters, digits, '_' and '-'."
            )
    if s.problems.mixture and s.problems.curriculum_steps:
        raise InputError(
            "config.problems.curriculum_steps orders problems by level, but the levels of the "
            "sets in config.problems.mixture cannot be compared. Set curriculum_steps to 0, or "
            "mixture to {}."
        )
    _check_pass_rate(s)
    rows = s.rollout.rows
    if rows % (s.memory.micro_batches or 1):
        raise InputError(
            f"{s.rollout.problems_per_step} problems x {s.rollout.samples_per_problem} samples = "
            f"{rows} rows cannot be split into config.memory.micro_batches="
            f"{s.memory.micro_batches} equal parts. Set it to a divisor of {rows}."
        )
    if s.rollout.top_p > 1.0:
        raise InputError(f"config.rollout.top_p={s.rollout.top_p} must be at most 1 (1: off).")
    try:
        re.compile(s.model.lora.targets)
    except re.error as error:
        raise InputError(
            f"config.model.lora.targets={s.model.lora.targets!r} is not a valid regular expression"
            f": {error}."
        ) from None
    _check_rewards(s.rewards)
    for i, name in enumerate(s.recipe):
        _check_stage(s, i, s.stages[name], f"config.stages.{name}")


def _check_prompt(s: Settings) -> None:
    problems = s.problems
    if problems.prompt and (problems.prompt_text or problems.instruction_text):
        text = "prompt_text" if problems.prompt_text else "instruction_text"
        raise InputError(
            f"config.problems.prompt={problems.prompt!r} names a prompt and its instruction, and "
            f"config.problems.{text} is a text of your own: a run has one of the two. For your own "
            "texts add --config.problems.prompt= (empty), and give both prompt_text and "
            "instruction_text."
        )
    if not problems.prompt and not problems.prompt_text:
        raise InputError(
            "the config has no prompt. Set config.problems.prompt to the name of one (score_jax/"
            "text/prompts.py), or config.problems.prompt_text and instruction_text to your own."
        )
    later = max(s.rollout.attempts, s.evaluation.attempts) - 1
    texts = problems.instructions
    if problems.prompt_text and later and not (texts and all(texts)):
        raise InputError(
            "config.problems.prompt_text is a prompt of your own, and nothing asks for the second "
            f"attempt: config.problems.instruction_text={problems.instruction_text!r}. Set it to "
            "the text between two attempts, or config.rollout.attempts to 1."
        )
    if len(texts) > 1 and len(texts) != later:
        raise InputError(
            f"config.problems.instruction_text has {len(texts)} texts, and with {later + 1} "
            f"attempts the number of later ones is {later}. Give one text for all, or {later}."
        )
    for path, source in {
        "test": problems.test,
        **{f"tests.{name}": source for name, source in problems.tests.items()},
        **{f"mixture.{name}": source for name, source in problems.mixture.items()},
    }.items():
        if source.prompt and source.prompt_text:
            raise InputError(
                f"config.problems.{path} has both a prompt, {source.prompt!r}, and a prompt_text. "
                "Leave one of them empty."
            )


def _check_pass_rate(s: Settings) -> None:
    wanted, samples = s.problems.pass_rate, s.problems.pass_rate_samples
    if not wanted:
        return
    if len(wanted) != 2 or not 0.0 <= wanted[0] <= wanted[1] <= 1.0:
        raise InputError(
            f"config.problems.pass_rate={wanted} must be the smallest and the largest share that "
            "is kept, as (0.1, 0.9), or () for all problems."
        )
    stages = {name: s.stages[name] for name in s.recipe if name != "base"}
    if not any(one.objective == "rl" or one.collect.filter for one in stages.values()):
        raise InputError(
            f"config.problems.pass_rate={wanted} chooses what is sampled after the base model, and "
            f"no stage of config.recipe={s.recipe} samples there. Set it to ()."
        )
    if (samples or s.rollout.samples_per_problem) > 1 and s.rollout.temperature == 0.0:
        raise InputError(
            "with config.rollout.temperature=0 all samples of a problem are equal, so pass rates "
            "are 0 or 1. Set it above 0, or config.problems.pass_rate to ()."
        )


def _check_rewards(rewards: RewardSettings) -> None:
    named = {f"functions.{name}.function": one.function for name, one in rewards.functions.items()}
    for path, function in {**named, "function": rewards.function}.items():
        own = re.fullmatch(r"([\w.]+|.+\.py):\w+", function)
        if (
            not own
            and (function != "builtin" or path == "function")
            and (function or path in named)
        ):
            raise InputError(
                f"config.rewards.{path}={function!r} must be 'module:function' or "
                "'file.py:function', such as 'examples.rewards.conversation:rubric'"
                f"{', or builtin, the grader that the problems name' if path in named else ''}."
            )
    for name in rewards.functions:
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(
                f"config.rewards.functions has a term {name!r}, whose name cannot be part of a "
                "metric's. Use letters, digits, '_' and '-'."
            )
    if rewards.function and "function" in rewards.functions:
        raise InputError(
            "config.rewards.function is the term 'function', but config.rewards.functions has a "
            "term of that name too. Give that one another name."
        )
    solving = [name for name, one in rewards.functions.items() if one.solves]
    terms = [*rewards.functions.values()]
    known = bool(rewards.function) or any(one.function == "builtin" for one in terms)
    if len(solving) > 1 or (len(terms) > 1 and not solving and not known):
        raise InputError(
            f"config.rewards.functions has the terms {', '.join(rewards.functions)}, of which "
            f"{len(solving) or 'none'} decide whether an attempt is solved (solves), which "
            "accuracies and filters need. Set config.rewards.functions.NAME.solves=True for one."
        )


def _check_stage(s: Settings, index: int, stage: StageSettings, path: str) -> None:
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
    if (stage.objective == "rl" or collect.filter) and s.rollout.temperature == 0.0:
        raise InputError(
            "with config.rollout.temperature=0 all samples of a problem are equal, so "
            f"{path} cannot learn from them. Set it above 0 (the paper: 1.0)."
        )
    if stage.documents != DocumentSettings() and (stage.objective == "rl" or collect.filter):
        raise InputError(
            f"{path}.documents says how the problems' own solutions are learned, but the stage has "
            f"objective={stage.objective!r} and collect.filter={collect.filter!r}. Leave it at its "
            "defaults."
        )
    (_check_documents if stage.objective == "sft" else _check_episodes)(s, stage, path)


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
    if (documents := stage.documents_per_step or s.rollout.rows) % (s.memory.micro_batches or 1):
        raise InputError(
            f"{path}.documents_per_step={documents} cannot be split into "
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
            f"the bonus of {stage.bonus:g}: at discount 0 the bonus only changes the scale. Set "
            "standardize to False, or the bonus to 0."
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
    if (stage.truncation == "penalty") != bool(stage.overlong_tokens):
        raise InputError(
            f"{path}.truncation={stage.truncation!r} with overlong_tokens={stage.overlong_tokens}: "
            "overlong_tokens is the length over which the penalty grows. Set both or neither."
        )
    if stage.kl_target and not stage.kl_attempt1:
        raise InputError(
            f"{path}.kl_target={stage.kl_target:g} adapts kl_attempt1 by factors, but kl_attempt1 "
            "is 0. Set it to a first value (the paper: 0.1)."
        )
