"""Every named choice of the settings has its implementation in one dictionary, under that name."""

import pytest

from score_jax import batches, loop
from score_jax.config.settings import (
    CHOICES,
    CollectSettings,
    CompileSettings,
    EvaluationSettings,
    MemorySettings,
    ModelSettings,
    OptimizerSettings,
    RewardSettings,
    StageSettings,
)
from score_jax.data.sft import filters
from score_jax.evaluation import evaluate
from score_jax.learner import optimizer
from score_jax.model import attention, transformer
from score_jax.rewards.sandbox import start
from score_jax.rl import advantages, kl, losses, shaping
from score_jax.runtime import compiles

IMPLEMENTATIONS = {
    (StageSettings, "objective"): batches.OBJECTIVES,
    (EvaluationSettings, "protocol"): evaluate.PROTOCOLS,
    (StageSettings, "baseline"): advantages.BASELINES,
    (StageSettings, "truncation"): shaping.TRUNCATIONS,
    (StageSettings, "kl_estimator"): kl.ESTIMATORS,
    (StageSettings, "normalizer"): losses.NORMALIZERS,
    (StageSettings, "schedule"): optimizer.SCHEDULES,
    (CollectSettings, "filter"): {**filters.FILTERS, "": None},  # empty: nothing is collected
    (CollectSettings, "learn_first"): filters.LEARN_FIRST,
    (OptimizerSettings, "name"): optimizer.OPTIMIZERS,
    (OptimizerSettings, "nonfinite"): loop.NONFINITE,
    (ModelSettings, "attention"): attention.ATTENTIONS,
    (MemorySettings, "remat"): transformer.REMAT,
    (CompileSettings, "after_warmup"): compiles.AFTER_WARMUP,
    (RewardSettings, "sandbox"): start.KINDS,
}
WITHOUT = {(ModelSettings, "dtype")}  # numpy knows a dtype by its name


@pytest.mark.parametrize("choice", [x for x in CHOICES if x not in WITHOUT], ids=lambda x: x[1])
def test_a_choice_has_an_implementation_for_each_of_its_names(choice):
    assert sorted(IMPLEMENTATIONS[choice]) == sorted(CHOICES[choice])


def test_no_choice_is_listed_that_the_settings_do_not_have():
    assert IMPLEMENTATIONS.keys() | WITHOUT == CHOICES.keys()
