"""Evaluation beyond the training rollout: more attempts, samples, Self-Refine's critique."""

import dataclasses
from unittest import mock

import numpy as np
import pytest

from score_jax import experiment
from score_jax.data.sets import arithmetic
from score_jax.evaluation import evaluate
from score_jax.evaluation.queue import Kept
from score_jax.experiment import Experiment
from score_jax.problem import InputError
from score_jax.rollout import contexts
from tests import fakes
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")
PROBLEMS = arithmetic.problems("test", count=12)
TEXTS = {"arithmetic": ("?+", "?=")}  # in characters that the quickstart's model has


def opened(**changes) -> Experiment:
    settings = tiny_settings()
    evaluation = dataclasses.replace(settings.evaluation, **changes)
    return Experiment.open(dataclasses.replace(settings, evaluation=evaluation))


def test_more_attempts_than_in_training_and_averages_over_samples():
    made = opened(attempts=3, samples=4)
    found = evaluate.evaluate(made, fakes.params(made.model), PROBLEMS)
    assert "accuracy_attempt3" in found.metrics and found.metrics["n"] == 12
    assert len(found.metrics["details"]["transitions"]) == 2
    assert set(found.metrics["details"]["by"]["level"]) <= {"3", "4", "5"}
    sampled = found.metrics["sampled"]
    assert (sampled["n"], sampled["samples"], sampled["temperature"]) == (12, 4, 0.7)
    assert sampled["pass_attempt1"]["1"] == pytest.approx(sampled["accuracy_attempt1"])
    fewer = opened()
    base = evaluate.evaluate(fewer, fakes.params(made.model), PROBLEMS)
    assert "sampled" not in base.metrics
    for row, other in zip(found.transcripts, base.transcripts, strict=True):
        assert row["attempts"][0]["text"] == other["attempts"][0]["text"]


def test_self_refine_rewrites_after_a_critique_that_is_not_graded(tmp_path):
    with (
        mock.patch.dict(experiment.SELF_REFINE, TEXTS),
        mock.patch.dict(evaluate.SELF_REFINE, TEXTS),
    ):
        made = opened(protocol="self_refine")
        params = fakes.params(made.model)
        kept = Kept(tmp_path / "kept.jsonl")
        with mock.patch.object(evaluate.shading, "rows_of", lambda problems: 1):
            found = evaluate.evaluate(made, params, PROBLEMS, kept=kept)
        parts = kept.read()
    first, rest = (
        contexts.of_records([records[n] for n in range(12)], made.template.tokenizer.pad_id)
        for records in (parts["first attempts"], parts["critiques"])
    )
    rows = contexts.around_a_critique(first, rest)
    text = made.template.tokenizer
    for b in range(12):
        row_T, mark_T = np.asarray(rows.tokens)[b], np.asarray(rows.attempt)[b]
        whole = text.decode(row_T[: int(rows.length[b])].tolist())
        first, second = (text.decode(row_T[mark_T == a].tolist()) for a in (1, 2))
        between = whole.removeprefix(PROBLEMS[b].prompt + first).removesuffix(second)
        assert between.lstrip(".").startswith("?+") and between.endswith("?=")
        assert len(between) > 4  # the critique, marked as nobody's
        attempts = found.transcripts[b]["attempts"]
        assert [a["text"] for a in attempts] == [x.removesuffix(".") for x in (first, second)]
    assert found.metrics["n"] == 12 and "accuracy_attempt2" in found.metrics


def test_self_refine_has_no_words_for_sums():
    with pytest.raises(InputError, match=r"one of the prompts math, .*the prompt 'arithmetic'"):
        opened(protocol="self_refine")
