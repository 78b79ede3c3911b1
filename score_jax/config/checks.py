"""Refuses settings that cannot work together: what is wrong, why it matters, what to set.

Those of a stage are in stage_checks.py. All these need the settings alone; checks that need the
model or its tokenizer are in experiment.py.
"""

import re

from score_jax.config import profiled
from score_jax.config.settings import OptimizerSettings, RewardSettings, Settings
from score_jax.config.stage_checks import check_stage
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
    for name in s.evaluation.every_except:
        if name not in s.stages:
            raise InputError(
                f"config.evaluation.every_except names a stage '{name}' that config.stages lacks. "
                f"{nearest(name, s.stages)}"
            )
    if not 0 <= s.seed < 2**32:
        raise InputError(
            f"config.seed={s.seed} must be from 0 to {2**32 - 1}, as random keys are made of it."
        )
    if not s.model.source:
        raise InputError(
            "config.model.source is empty, so there is no model. Name a .gguf file, a folder with "
            "config.json and model.safetensors, a hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct, or a preset such as preset:quickstart."
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
    for path, share in (
        ("rollout.top_p", s.rollout.top_p),
        ("rewards.failed_share", s.rewards.failed_share),
        ("problems.bad_golds", s.problems.bad_golds),
    ):
        if share > 1.0:
            raise InputError(f"config.{path}={share:g} is a share: it must be at most 1.")
    if s.rollout.engine and not re.fullmatch("socket:.+", s.rollout.engine):
        raise InputError(
            f"config.rollout.engine={s.rollout.engine!r} must be 'socket:PATH', the socket of an "
            "engine (docs/engine.md), or empty: then this process samples itself."
        )
    _check_buckets(s)
    _check_optimizer(s.optimizer)
    try:
        re.compile(s.model.lora.targets)
    except re.error as error:
        raise InputError(
            f"config.model.lora.targets={s.model.lora.targets!r} is not a valid regular expression"
            f": {error}."
        ) from None
    _check_rewards(s.rewards)
    profiled.check(s)
    for i, name in enumerate(s.recipe):
        check_stage(s, i, s.stages[name], f"config.stages.{name}")


def _check_buckets(s: Settings) -> None:
    widest = s.rollout.max_prompt_tokens
    wrong = [width for width in s.rollout.prompt_buckets if not 1 <= width <= widest]
    if wrong:
        raise InputError(
            f"config.rollout.prompt_buckets={s.rollout.prompt_buckets} has the width {wrong[0]}: "
            f"widths are numbers of tokens from 1 to config.rollout.max_prompt_tokens={widest}. "
            "Leave it out."
        )


def _check_optimizer(optimizer: OptimizerSettings) -> None:
    for name in ("beta1", "beta2"):
        if not 0.0 <= getattr(optimizer, name) < 1.0:
            raise InputError(
                f"config.optimizer.{name}={getattr(optimizer, name):g} is the share of an average "
                "that stays from step to step: it must be at least 0 and below 1."
            )
    if not optimizer.epsilon > 0.0:
        raise InputError(
            f"config.optimizer.epsilon={optimizer.epsilon:g} must be above 0: weights without a "
            "gradient would be divided by 0 (1e-8 is usual)."
        )


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
