"""Budgets of a pool made by hand, and a study of the quickstart's untrained model."""

import dataclasses
import json

import numpy as np
import pytest

from score_jax.config.settings import ScalingSettings
from score_jax.evaluation import scaling
from score_jax.experiment import Experiment
from score_jax.modes import scale
from score_jax.problem import InputError, Problem
from tests import fakes
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


def pool(answers, gold="r", tokens=3, read=10) -> scaling.Pool:
    """One problem's samples; the right answer is `gold`."""
    reward_GA = np.array([[float(a == gold) for a in sample] for sample in answers])
    return scaling.Pool(
        [answers],
        reward_GA[None],
        np.full((1, *reward_GA.shape), tokens),
        np.full((1, len(answers)), read if len(answers[0]) > 1 else 0),
    )


def test_budgets_by_hand():
    pairs = pool([["w", "r"], ["w", "w"], ["r", "w"], ["w", "w"]])
    others = pool([["r"], ["r"], ["r"], ["r"]])
    two, four, eight = scaling.budgets(pairs, others)
    assert [row["solutions"] for row in (two, four, eight)] == [2, 4, 8]
    # Two first attempts w w, or one with its correction w r: the second attempt alone, or a tie.
    assert [two[way]["accuracy"] for way in scaling.WAYS] == [0, 1, 0]
    # w w r w; second attempts r w (a tie: first seen); all four w r w w.
    assert [four[way]["accuracy"] for way in scaling.WAYS] == [0, 1, 0]
    # w w r w r r r r; second attempts r w w w; all eight w r w w r w w w.
    assert [eight[way]["accuracy"] for way in scaling.WAYS] == [1, 0, 0]
    assert [row["parallel"]["tokens"] for row in (two, four, eight)] == [6, 12, 24]
    assert [row["sequential"]["tokens"] for row in (two, four, eight)] == [6, 12, 24]
    assert [row["sequential"]["read"] for row in (two, four, eight)] == [10, 20, 40]
    assert two["sequential"]["above_parallel"]["difference"] == 1


def test_a_study_writes_its_table_and_plot(tmp_path, capsys):
    settings = tiny_settings(scaling=ScalingSettings(problems=12, solutions=8, batch=8))
    scale.scale_latest(settings, tmp_path)
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "scaling" / "base.json").read_text())
    assert (found["n"], found["stage"], found["temperature"]) == (12, "base", 0.7)
    assert [row["solutions"] for row in found["budgets"]] == [2, 4, 8]
    assert found["sampled"]["samples"] == 4
    assert "K + K above parallel" in said and "n=12" in said
    assert (tmp_path / "scaling" / "base.png").stat().st_size > 10_000


def test_programs_cannot_be_voted_on():
    settings = tiny_settings()
    experiment = Experiment.open(settings)
    problem = Problem("p", "write", "{}", grader="program")
    with pytest.raises(InputError, match=r"votes over stated answers.*graders: program"):
        scaling.study(experiment, fakes.params(experiment.model), [problem])
    rewards = dataclasses.replace(settings.rewards, function="a.b:c")
    experiment = dataclasses.replace(
        experiment, settings=dataclasses.replace(settings, rewards=rewards)
    )
    with pytest.raises(InputError, match="a function of your own"):
        scaling.study(experiment, fakes.params(experiment.model), [])
