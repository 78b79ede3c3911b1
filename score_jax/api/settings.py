"""From a model, a task and a recipe to the settings of a run, with defaults for small machines.

A group of settings is a mapping of its names, or the group's dataclass as a whole.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_jax.api.recipes import Recipe, score
from score_jax.api.task import Task
from score_jax.config import build
from score_jax.config.settings import ModelSettings, Settings
from score_jax.data.asked import encoded, instruction_limit
from score_jax.experiment import template_of_source

# What a run of a few minutes on a laptop takes.
ROLLOUT = {"problems_per_step": 8, "samples_per_problem": 4}
EVALUATION = {"problems": 100, "batch": 32}
CHECKPOINT = {"every": 50}
WIDTH = 8  # prompts are padded to a multiple of so many tokens
MOST_PROMPT_TOKENS = 1024  # longer prompts are left out, unless rollout.max_prompt_tokens is given


def settings_of(
    model: ModelSettings,
    task: Task,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    **groups: Any,
) -> Settings:
    """The settings of a run, checked.

    Args:
      recipe: None: of a model that is only asked.
      folder: where problems of a list are written for the run; None: nowhere, nothing is trained.
      groups: rollout, evaluation, memory, optimizer, checkpoint, … (config/settings.py, Settings).
    Raises: InputError for a group or a setting that there is not, and for contradictions.
    """
    recipe = recipe or score(1, 1)
    tree: dict[str, Any] = {
        "model": model,
        "problems": task.settings_in(folder) if folder else task.settings,
        "rewards": task.rewards,
        "recipe": tuple(recipe.stages),
        "stages": dict(recipe.stages),
        "name": recipe.name,
        "seed": seed,
        "rollout": {**ROLLOUT, "max_prompt_tokens": 1, "max_attempt_tokens": task.attempt_tokens},
        "evaluation": EVALUATION,
        "checkpoint": CHECKPOINT,
    }
    for name, group in groups.items():
        before = tree.get(name, {})
        whole = not isinstance(group, Mapping) or not isinstance(before, Mapping)
        tree[name] = group if whole else {**before, **group}
    settings = build.resolve(_plain(tree))
    if settings.rollout.max_prompt_tokens == 1:
        widest = _longest_prompt(settings, task)
        rollout = dataclasses.replace(settings.rollout, max_prompt_tokens=widest)
        settings = dataclasses.replace(settings, rollout=rollout)
    if folder:  # after everything is checked
        task.write(folder)
    return settings


def _longest_prompt(settings: Settings, task: Task) -> int:
    """Tokens of the longest prompt that a run takes, rounded up.

    An instruction has as many for the fields of a row: if these need more, that counts.
    """
    template = template_of_source(settings)
    every = [*task.problems, *task.test_problems]
    longest = max(len(encoded(problem, template.first_turn)) for problem in every)
    own = {text for problem in every for text in problem.instructions}
    if own:  # of the longest, what is not in the instruction itself
        limit = instruction_limit(settings, template) - settings.rollout.max_prompt_tokens
        longest = max(longest, max(len(template.turn(text)) for text in own) - limit)
    return min(-(-longest // WIDTH) * WIDTH, MOST_PROMPT_TOKENS)


def _plain(value: Any) -> Any:
    """Dataclasses as mappings, at any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value
