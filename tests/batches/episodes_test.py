"""Rewards of the user's own in the steps of a stage: what is measured, warned of and masked."""

import dataclasses

import numpy as np
import pytest

from score_jax import run as runs
from score_jax.batches import episodes as episodes_module
from score_jax.batches.episodes import Episodes
from score_jax.config.settings import FunctionSettings, LoraSettings, RewardSettings, Settings
from score_jax.learner import step
from score_jax.rewards.workers import pool
from tests.recipes_test import stage_of, tiny, with_stages

pytestmark = pytest.mark.usefixtures("quick_compile")

# Distance of an attempt from the letter m in -1 … 0; a row whose first attempt is odd ends it.
FUNCTION = """
import os
def near(problem, texts, gold):
    return [-min(1.0, sum(abs(ord(c) - 109) for c in text) / 500) for text in texts]
def odd_dies(problem, texts, gold, *, stage, step):
    assert (stage, step) == ("stage1", 1) or not any(texts)
    if sum(map(ord, texts[0])) % 2: os._exit(1)
    return [0.5] * len(texts)
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    yield str(tmp_path / "mine.py")
    pool.close()


def step_of(settings: Settings, folder):
    """The graded first step of Stage I, its batch, and what the log says."""
    with runs.opened(settings, folder / "run", train=True) as run:
        episodes = Episodes(run, stage_of(run, "stage1"))
        sampled = episodes.dispatch(run.experiment.initial_params(), 1)
        graded = episodes.graded(sampled)
        return graded, episodes.batch(sampled)[0]


def test_each_term_is_measured_and_a_negative_reward_is_warned_of_once(file, tmp_path, capsys):
    terms = {
        "near": FunctionSettings(f"{file}:near", weight=2.0),
        "right": FunctionSettings("builtin"),
    }
    settings = dataclasses.replace(tiny("score"), rewards=RewardSettings(functions=terms))
    graded, batch = step_of(settings, tmp_path)
    texts, kept_BA = graded.own.texts, ~np.asarray(graded.own.rows.truncated)
    near_BA = [[-min(1.0, sum(abs(ord(c) - 109) for c in t) / 500) for t in row] for row in texts]
    right_BA = [
        [text[:1] == problem.gold for text in row]
        for problem, row in zip(graded.own.problems, texts, strict=True)
    ]
    total_BA = np.where(kept_BA, 2 * np.array(near_BA) + np.array(right_BA), 0.0)
    np.testing.assert_allclose(graded.reward_BA, total_BA, rtol=1e-6)
    np.testing.assert_allclose(batch.reward, total_BA, rtol=1e-6)
    np.testing.assert_array_equal(graded.solved_BA, np.array(right_BA) & kept_BA)
    for a in (0, 1):
        found = graded.measured[f"reward/near/attempt{a + 1}"]
        assert found == pytest.approx(np.mean(near_BA, axis=0)[a], rel=1e-6)
        assert graded.measured[f"reward/right/attempt{a + 1}"] == np.mean(right_BA, axis=0)[a]
    said = capsys.readouterr().out
    assert said.count("which is better, and may be learned") == 1
    assert "config.rewards.truncated and config.rewards.failed" in said


def test_rows_whose_function_died_earn_their_reward_or_are_masked(file, tmp_path, capsys):
    own = RewardSettings(function=f"{file}:odd_dies", failed=-1.0, truncated=-1.0, failed_share=1.0)
    settings = dataclasses.replace(tiny("score"), rewards=own)
    graded, batch = step_of(with_stages(settings, truncation="mask"), tmp_path)
    failed_B = np.array([sum(map(ord, row[0])) % 2 == 1 for row in graded.own.texts])
    assert 0 < failed_B.sum() < len(failed_B)
    cut_BA = np.asarray(graded.sampled.truncated)
    expected_BA = np.where(failed_B[:, None] | cut_BA, -1.0, 0.5)
    np.testing.assert_array_equal(graded.reward_BA, expected_BA)
    np.testing.assert_array_equal(batch.truncated, failed_B[:, None] | cut_BA)
    assert graded.measured["function_failed"] == failed_B.mean()
    assert graded.measured["truncated/attempt1"] == cut_BA[:, 0].mean()  # masked is not truncated
    assert graded.measured["reward/function/attempt1"] == 0.5  # of the calls that came back
    said = capsys.readouterr().out
    assert f"failed for {failed_B.sum()} of {len(failed_B)} rows (function: crash)" in said
    assert said.count("WARNING") == 1
    _, batch = step_of(settings, tmp_path / "unmasked")
    np.testing.assert_array_equal(batch.truncated, cut_BA)


def with_stops(settings: Settings, **stops) -> Settings:
    return dataclasses.replace(settings, problems=dataclasses.replace(settings.problems, **stops))


@pytest.mark.parametrize("offline", [0.0, 1.0])
def test_text_that_leaves_an_attempt_is_neither_graded_nor_learned(tmp_path, offline):
    settings = with_stops(tiny("score"), stop_before=("1", "+"), stop_after=("5",))
    settings = with_stages(settings, offline_share=offline)
    with runs.opened(settings, tmp_path / "run", train=True) as run:
        stage = stage_of(run, "stage1")
        params, reference = (run.experiment.initial_params() for _ in range(2))
        episodes = Episodes(run, stage, reference)
        graded = episodes.graded(episodes.dispatch(params, 1))
        batch = episodes.batch(episodes.dispatch(params, 2))[0]
        state = run.experiment.first_state(stage.settings, params)
        _, metrics = step.train_step(state, reference, batch, stage=stage.settings, base=None)
    texts = [text for row in graded.own.texts for text in row]
    assert not any({"1", "+"} & {*text} for text in texts)
    assert all(text.find("5") in (-1, len(text) - 1) for text in texts)
    assert any(text.endswith("5") for text in texts)
    empty = [text for text in texts if not text]
    assert empty, "a stop sequence may come first"
    stopped_BA = np.array([[t.endswith("5") or not t for t in row] for row in graded.own.texts])
    assert not np.asarray(graded.sampled.truncated)[stopped_BA].any()
    learned = np.asarray(batch.tokens)[np.asarray(batch.attempt) > 0]
    ids = {text: run.experiment.template.tokenizer.encode(text)[0] for text in "1+5"}
    assert ids["5"] in learned and not {ids["1"], ids["+"]} & {*learned.tolist()}
    assert float(metrics["logp_gap"]) < 2e-6


def test_each_row_is_trained_after_the_instruction_of_its_problem_also_offline(tmp_path):
    own = {"prompt": "", "prompt_text": "{problem}", "instruction_text": ("?{problem}", "+?")}
    settings = with_stages(tiny("score"), offline_share=0.5, kl_attempt1=0.1, kl_attempt2=0.1)
    settings = dataclasses.replace(
        settings,
        problems=dataclasses.replace(settings.problems, **own),
        rollout=dataclasses.replace(settings.rollout, attempts=3, problems_per_step=16),
        recipe=("stage1",),  # the stage "base" learns a corpus of another prompt
        stages={"stage1": settings.stages["stage1"]},
    )
    with runs.opened(settings, tmp_path / "run", train=True) as run:
        experiment, stage = run.experiment, stage_of(run, "stage1")
        params, reference = (experiment.initial_params() for _ in range(2))
        episodes = Episodes(run, stage, reference)
        dispatched = episodes.dispatch(params, 1)
        graded = episodes.graded(dispatched)
        batch = episodes.batch(episodes.dispatch(params, 2))[0]
        state = experiment.first_state(stage.settings, params)
        _, metrics = step.train_step(state, reference, batch, stage=stage.settings, base=None)
    rows, text = graded.own.rows, experiment.template.tokenizer
    assert rows.tokens.shape[1] == experiment.columns
    for b, problem in enumerate(graded.own.problems):
        marks = rows.attempt[b]
        assert set(marks) == ({0, 1, 2, 3} if b < 16 else {0, 2, 3})
        assert problem.instructions == (f"?{problem.asked}", "+?")
        for a, said in enumerate(problem.instructions, start=2):
            begin, ids = int(np.argmax(marks == a)), text.encode(said)
            if rows.truncated[b, a - 2]:
                ids = [*experiment.template.turn_end_ids, *ids]
            assert rows.tokens[b, begin - len(ids) : begin].tolist() == ids
            assert not marks[begin - len(ids) : begin].any()
    assert float(metrics["logp_gap"]) < 2e-6
    found = [float(metrics[f"kl/attempt{a}"]) for a in (1, 2, 3)]
    assert max(map(abs, found)) < 1e-5  # the policy is the reference


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_in_bfloat16_a_step_from_the_reference_has_no_kl_and_its_log_probs_do_not_wait_for_grades(
    tmp_path, monkeypatch, rank
):
    settings = tiny("score")
    model = dataclasses.replace(settings.model, dtype="bfloat16", lora=LoraSettings(rank=rank))
    settings = with_stages(dataclasses.replace(settings, model=model))
    with runs.opened(settings, tmp_path / "run", train=True) as run:
        stage, experiment = stage_of(run, "stage1"), run.experiment
        params, reference = experiment.initial_params(), experiment.initial_reference()
        episodes = Episodes(run, stage, reference)
        episodes.prepare(experiment.first_state(stage.settings, experiment.initial_params()))
        dispatched = episodes.dispatch(params, 1)
        assert dispatched.logprobs is not None
        monkeypatch.setattr(episodes_module.sampled_logprobs, "of", None)  # nor are they read again
        batch, _ = episodes.batch(dispatched)
        state = experiment.first_state(stage.settings, params)
        base = experiment.base
        _, metrics = step.train_step(state, reference, batch, stage=stage.settings, base=base)
    assert metrics["kl/attempt1"] == 0.0 and metrics["kl/attempt2"] == 0.0
    assert 0.0 < metrics["logp_gap"] < 0.1
