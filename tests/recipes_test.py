"""Every recipe of the quickstart runs, and the paper's baselines are what they say they are."""

import dataclasses
import json

import pytest

from score_jax import config, train
from score_jax.config import resolve
from tests.train_test import ROOT, metrics_of

pytestmark = pytest.mark.usefixtures("quick_compile")

SPEC: dict = {}
exec((ROOT / "configs" / "quickstart.py").read_text(), SPEC)


def tiny(recipe: str, **changes) -> config.Settings:
    """Two steps of each stage on a few rows; the shapes are the same in all recipes."""
    s = resolve(SPEC["get_config"](recipe))
    stages = {}
    for name, stage in s.stages.items():
        steps = 1 if name == "base" else 2
        collect = stage.collect
        if collect.filter:
            # An untrained model is hardly ever right: the filter must find something to keep.
            collect = dataclasses.replace(collect, steps=2)
        stages[name] = dataclasses.replace(
            stage, steps=steps, collect=collect, documents_per_step=16, **changes
        )
    return dataclasses.replace(
        s,
        stages=stages,
        rollout=dataclasses.replace(
            s.rollout, problems_per_step=8, samples_per_problem=2, turn_rows=4
        ),
        rewards=dataclasses.replace(s.rewards, function="tests.recipes_test:even_length"),
        evaluation=dataclasses.replace(s.evaluation, problems=8, batch=8),
        checkpoint=config.CheckpointSettings(every=1, keep=2),
    )


def even_length(problem, texts, gold):
    """A reward that an untrained model earns half of the time."""
    from score_jax.problem import Grade

    del problem, gold
    return [Grade(float(sum(map(ord, text)) % 2), "even") for text in texts]


@pytest.mark.parametrize("recipe", SPEC["RECIPES"])
def test_every_recipe_runs(recipe, tmp_path):
    settings = tiny(recipe)
    assert train.train(settings, str(tmp_path)) == train.DONE
    steps = [(row["stage"], row["step"]) for row in metrics_of(tmp_path)]
    assert steps == [
        (name, i + 1) for name in settings.recipe for i in range(settings.stages[name].steps)
    ]
    last = json.loads((tmp_path / "evaluations" / f"{settings.recipe[-1]}.json").read_text())
    assert last["n"] == 8 and "accuracy_attempt2" in last  # single_turn_rl too
    for name in settings.recipe:
        if settings.stages[name].collect.filter:
            assert (tmp_path / "collected" / f"{name}.jsonl").exists()


def test_recipes_have_equal_budgets():
    for name, stages in SPEC["RECIPES"].items():
        if name != "base":
            trained = [stage for stage in stages.values() if stage is not SPEC["BASE"]]
            sampled = [stage.collect.steps or stage.steps for stage in trained]
            assert sum(stage.steps for stage in trained) == sum(sampled) == SPEC["STEPS"], name
