"""Recipes as values: the stages of a training, in order.

    score(stage1=300, stage2=100, learning_rate=1e-5)
    score(stage1={"steps": 300, "kl_attempt1": 0.2}, stage2=100, bonus=5.0)
    multi_turn_rl(400)
    single_turn_rl(400)
    recipe(warm=StageSettings(…), **score(100, 100).stages)

A stage is a number of steps, a mapping of its settings (config/settings.py, StageSettings), or a
StageSettings; keywords hold for all stages of the recipe. Coefficients are the paper's for MATH
(arXiv 2409.12917, table 8): beta_2 = 0.1, beta_1 = 0.01, alpha = 10.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from score_jax.config import build
from score_jax.config.settings import StageSettings

StageLike = int | Mapping[str, Any] | StageSettings
LEARNING_RATE = 1e-5  # Adam's; of adapters and of models below a billion weights more may be right


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Stages by name, in the order in which they run."""

    stages: Mapping[str, StageSettings]
    name: str = ""  # in tables


def score(stage1: StageLike, stage2: StageLike, **settings: Any) -> Recipe:
    """SCoRe: Stage I holds the first attempt to the base model and rewards the second alone; Stage
    II rewards both, with the bonus α(r₂ − r₁).

    Args:
      stage1, stage2: steps, or settings of the stage.
      settings: of both stages.
    Raises: InputError for a setting that a stage does not have, or that has another type.
    """
    first = {"reward_attempt1": 0.0, "kl_attempt1": 0.1, "kl_attempt2": 0.01}
    second = {"bonus": 10.0, "kl_attempt1": 0.01, "kl_attempt2": 0.01}
    # Each of these makes one of the two stages what it is, so the other does not get it.
    of_first = {key: value for key, value in settings.items() if key != "bonus"}
    of_second = {key: value for key, value in settings.items() if key != "reward_attempt1"}
    return Recipe(
        {
            "stage1": _stage("stage1", stage1, first, of_first),
            "stage2": _stage("stage2", stage2, second, of_second),
        },
        "SCoRe",
    )


def multi_turn_rl(steps: StageLike, **settings: Any) -> Recipe:
    """Naive multi-turn RL: both attempts rewarded alike, without Stage I or bonus. As `score`."""
    stage = _stage("multi_turn_rl", steps, {"kl_attempt1": 0.01, "kl_attempt2": 0.01}, settings)
    return Recipe({"multi_turn_rl": stage}, "multi-turn RL")


def single_turn_rl(steps: StageLike, **settings: Any) -> Recipe:
    """RL on first attempts alone; evaluations still ask for both. Raises as `score`."""
    stage = _stage("single_turn_rl", steps, {"attempts": 1}, settings)
    return Recipe({"single_turn_rl": stage}, "single-turn RL")


def recipe(name: str = "", /, **stages: StageLike) -> Recipe:
    """Stages of your own, in order. Raises as `score`."""
    return Recipe({key: _stage(key, stage, {}, {}) for key, stage in stages.items()}, name)


def _stage(
    name: str, given: StageLike, defaults: Mapping[str, Any], settings: Mapping[str, Any]
) -> StageSettings:
    """A stage: what is given for it comes before `settings`, and they before `defaults`."""
    if isinstance(given, StageSettings):
        return given
    own = given if isinstance(given, Mapping) else {"steps": given}
    tree = {"learning_rate": LEARNING_RATE, **defaults, **settings, **own}
    return build.build(StageSettings, tree, name)
