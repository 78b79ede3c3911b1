"""logging.profile: what it may say, and what is refused before anything is loaded."""

import dataclasses

import pytest

from score_jax.config.checks import check
from score_jax.config.profiled import Profiled, profiled
from score_jax.config.settings import LoggingSettings
from score_jax.problem import InputError
from tests.config.settings_test import SETTINGS


def test_steps_are_read():
    assert profiled("stage1:3+2") == Profiled("stage1", 3, 4)
    assert profiled("base:7") == Profiled("base", 7, 7)
    assert profiled("") is None


@pytest.mark.parametrize("text", ["stage1:1+2", "stage2:3", "base:1+1", ""])
def test_steps_that_there_are_may_be_profiled(text):
    check(dataclasses.replace(SETTINGS, logging=LoggingSettings(profile=text)))


@pytest.mark.parametrize(
    "text, words",
    [
        ("stage1", "STAGE:STEP+N"),
        ("stage1:0+2", "count from 1"),
        ("stage1:1+0", "STAGE:STEP+N"),
        ("stage1:-1", "STAGE:STEP+N"),
        ("stage1:1+2 ", "STAGE:STEP+N"),
        ("stag1:1", "Did you mean 'stage1'"),
        ("stage1:2+2", "ends at step 3, and config.stages.stage1.steps=2"),
        ("stage2:4", "ends at step 4, and config.stages.stage2.steps=3"),
    ],
)
def test_others_are_refused_by_name(text, words):
    with pytest.raises(InputError, match=r"logging\.profile=") as caught:
        check(dataclasses.replace(SETTINGS, logging=LoggingSettings(profile=text)))
    assert words in str(caught.value)
