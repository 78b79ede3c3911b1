"""Every recipe of the quickstart runs, and the paper's baselines are what they say they are."""

import dataclasses
import functools
import json
import re
from unittest import mock

import jax
import numpy as np
import pytest

from configs import laptop_smollm2_135m
from score_jax import batches, loop
from score_jax.batches import Episodes, collected
from score_jax.config.build import resolve
from score_jax.config.settings import CheckpointSettings, Settings
from score_jax.evaluation.queue import Countdown
from score_jax.model import transformer
from score_jax.problem import Grade, InputError
from score_jax.rewards import selective
from score_jax.rl import adaptive
from score_jax.run import Run, Stage
from score_jax.runtime.compiles import Watch
from score_jax.workdir import alarms
from tests import fakes
from tests.loop_test import ROOT, AfterCalls, Crash, metrics_of

pytestmark = pytest.mark.usefixtures("quick_compile")

SPEC: dict = {}
exec((ROOT / "configs" / "quickstart.py").read_text(), SPEC)


def tiny(recipe: str, **changes) -> Settings:
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
        checkpoint=CheckpointSettings(every=1, keep=2),
    )


def even_length(problem, texts, gold):
    """A reward that an untrained model earns half of the time."""
    del problem, gold
    return [Grade(float(sum(map(ord, text)) % 2), "even") for text in texts]


@pytest.fixture(autouse=True)
def no_report():
    """Page and plots have tests of their own, and take longer than these steps."""
    with mock.patch.object(loop.page, "write"), mock.patch.object(loop.plots, "write"):
        yield


LONG = ("selective", "star", "star_plus", "pair_sft", "pair_sft_plus", "star_stage2", "no_stage1")


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(r, marks=[pytest.mark.slow] * (r in LONG)) for r in SPEC["RECIPES"]],
)
def test_every_recipe_runs(recipe, tmp_path):
    settings = tiny(recipe)
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    steps = [(row["stage"], row["step"]) for row in metrics_of(tmp_path)]
    assert steps == [
        (name, i + 1) for name in settings.recipe for i in range(settings.stages[name].steps)
    ]
    last = json.loads((tmp_path / "evaluations" / f"{settings.recipe[-1]}.json").read_text())
    assert last["n"] == 8 and "accuracy_attempt2" in last  # single_turn_rl too
    for name in settings.recipe:
        if settings.stages[name].collect.filter:
            assert (tmp_path / "collected" / f"{name}.jsonl").exists()


def run_of(settings: Settings, folder) -> Run:
    return Run.start(settings, folder, fakes.NO_LOG, Watch(say=print))


def stage_of(run: Run, name: str) -> Stage:
    return run.stages[run.settings.recipe.index(name)]


def weights(settings: Settings, folder, stage: str) -> np.ndarray:
    leaves = jax.tree.leaves(run_of(settings, folder).params_of(stage))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def with_stages(settings: Settings, **changes) -> Settings:
    """The settings with changes to all stages but base."""
    stages = {
        name: stage if name == "base" else dataclasses.replace(stage, **changes)
        for name, stage in settings.stages.items()
    }
    return dataclasses.replace(settings, stages=stages)


def test_a_star_iteration_starts_from_the_base_model_and_samples_from_the_one_before(tmp_path):
    settings = tiny("star_plus")
    last = dataclasses.replace(settings.stages["star3"], learning_rate=0.0)
    settings = dataclasses.replace(settings, stages={**settings.stages, "star3": last})
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    base = weights(settings, tmp_path, "base")
    np.testing.assert_array_equal(weights(settings, tmp_path, "star3"), base)
    assert np.any(weights(settings, tmp_path, "star2") != base)
    settings = tiny("star_plus")
    assert settings.stages["star2"].start == "base"
    asked = []
    with (
        mock.patch.object(Run, "params_of", lambda self, stage: asked.append(stage)),
        mock.patch.object(collected, "problems_of", side_effect=Crash),
        pytest.raises(Crash),
    ):
        run = run_of(settings, tmp_path / "empty")
        collected.documents_of(run, stage_of(run, "star2"))
    assert asked == ["star1"]


def test_a_collection_that_is_stopped_goes_on_to_the_same_documents(tmp_path, capsys):
    settings = tiny("pair_sft_plus")
    longer = dataclasses.replace(settings.stages["pair_sft"].collect, steps=4)
    stages = {"pair_sft": dataclasses.replace(settings.stages["pair_sft"], collect=longer)}
    settings = dataclasses.replace(settings, stages={**settings.stages, **stages})
    at_once = functools.partial(Countdown, every_sec=0.0)
    with mock.patch.object(collected, "Countdown", at_once):
        assert loop.train(settings, str(tmp_path / "whole")) == loop.DONE
    assert re.search(r"pair_sft: episode \d+/64", capsys.readouterr().out)
    part = tmp_path / "stopped" / "collected" / "pair_sft.part.jsonl"

    def in_the_middle() -> bool:
        return part.exists() and len(part.read_text().splitlines()) > 1

    assert loop.train(settings, str(tmp_path / "stopped"), stop=in_the_middle) == loop.STOPPED
    lines = part.read_text().splitlines(keepends=True)
    assert 1 < len(lines) < 65
    # Killed while it wrote: one line is torn.
    part.write_text("".join(lines) + lines[-1][:40])
    assert loop.train(settings, str(tmp_path / "stopped")) == loop.DONE
    assert not part.exists()
    ours, theirs = (
        (tmp_path / name / "collected" / "pair_sft.jsonl").read_text()
        for name in ("stopped", "whole")
    )
    assert ours == theirs and ours.count("\n") > 0
    assert metrics_of(tmp_path / "stopped") == metrics_of(tmp_path / "whole")


def test_documents_are_the_episodes_ids_laid_out_as_the_sampler_did(tmp_path):
    settings = tiny("star_plus")
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    run = run_of(settings, tmp_path)
    source = batches.of_stage(run, run.stages[1], None)
    source.prepare(None)
    batch, _ = source.batch(1)
    text = run.experiment.template.tokenizer
    (found, *_) = [json.loads(x) for x in (tmp_path / "collected/star1.jsonl").open()]
    rows = [
        text.decode(np.asarray(row)[:length].tolist())
        for row, length in zip(batch.tokens, batch.length, strict=True)
    ]
    row = rows.index(
        text.decode(found["prompt"])
        + text.decode(found["attempts"][0]["ids"])
        + ("." if found["attempts"][0]["truncated"] else "")
        + "?"
        + text.decode(found["attempts"][1]["ids"])
    )
    assert batch.reward[row].tolist() == [found["attempts"][0]["reward"], 1.0]
    assert not np.any(batch.truncated[:, 1])


def test_no_documents_left_is_told(tmp_path):
    settings = tiny("star")
    rewards = dataclasses.replace(settings.rewards, function="tests.recipes_test:never")
    with pytest.raises(InputError, match="left none of the episodes of 2 rollouts"):
        loop.train(dataclasses.replace(settings, rewards=rewards), str(tmp_path))


def never(problem, texts, gold):
    """A reward that nobody earns."""
    del problem, gold
    return [Grade(0.0, "never") for _ in texts]


def test_offline_rows_go_on_behind_the_references_first_attempts(tmp_path):
    settings = tiny("score", offline_share=0.0)
    stages = {"stage2": dataclasses.replace(settings.stages["stage2"], offline_share=0.5)}
    rollout = dataclasses.replace(settings.rollout, problems_per_step=16, samples_per_problem=2)
    settings = dataclasses.replace(
        settings, recipe=("stage2",), stages={**settings.stages, **stages}, rollout=rollout
    )
    run = run_of(settings, tmp_path)
    reference, params = run.experiment.initial_reference(), fakes.params(run.experiment.model)
    episodes = Episodes(run, run.stages[0], reference)
    before = episodes.get_state()
    graded = episodes.graded(episodes.dispatch(params, 1))
    sampled = jax.device_get(graded.sampled)
    ours, offline = slice(0, 16), slice(16, 32)
    assert set(sampled.attempt[ours].ravel()) == {0, 1, 2}
    assert set(sampled.attempt[offline].ravel()) == {0, 2}  # nobody's first attempt is trained
    text = run.experiment.template.tokenizer
    for b in range(16, 32):
        row_T, mark_T = sampled.tokens[b], sampled.attempt[b]
        begin = int((mark_T > 0).argmax())
        context = text.decode(row_T[:begin].tolist())
        first, second = graded.own.texts[b]
        assert context.startswith(graded.own.problems[b].prompt + first) and context.endswith("?")
        assert second == text.decode(row_T[mark_T == 2].tolist()).removesuffix(".")
        grade = even_length(None, [first], "")[0].reward
        assert graded.reward_BA[b, 0] == (0.0 if sampled.truncated[b, 0] else grade)
    pairs = [(graded.own.texts[b][0], graded.own.texts[b + 1][0]) for b in range(16, 32, 2)]
    assert all(a == b for a, b in pairs)  # samples of a problem share it
    # They are the reference's: another policy changes what follows, not them.
    episodes.set_state(before)
    other = episodes.graded(episodes.dispatch(reference, 1)).own.texts[offline]
    texts = graded.own.texts[offline]
    assert [row[0] for row in other] == [row[0] for row in texts]
    assert [row[1] for row in other] != [row[1] for row in texts]


def with_instructions(settings: Settings, said: tuple[str, ...]) -> Settings:
    """The settings with a prompt text, these instructions, and Stage II alone, partly offline."""
    own = {"prompt": "", "prompt_text": "{problem}", "instruction_text": said}
    return dataclasses.replace(
        settings,
        problems=dataclasses.replace(settings.problems, **own),
        rollout=dataclasses.replace(settings.rollout, attempts=3, problems_per_step=16),
        recipe=("stage2",),
        stages={"stage2": dataclasses.replace(settings.stages["stage2"], offline_share=0.5)},
    )


@pytest.mark.slow
def test_three_attempts_follow_two_instructions_in_training_and_evaluation(tmp_path):
    settings = with_instructions(tiny("score"), ("?", "+?"))
    run = run_of(settings, tmp_path)
    episodes = Episodes(run, run.stages[0], run.experiment.initial_reference())
    sampled = episodes.dispatch(fakes.params(run.experiment.model), 1).sampled
    rows = jax.device_get(sampled)
    text = run.experiment.template.tokenizer
    own = {2: text.encode("?"), 3: text.encode("+?")}
    turn_end = run.experiment.template.turn_end_ids
    for b, mark_T in enumerate(rows.attempt):
        assert set(mark_T) == ({0, 1, 2, 3} if b < 16 else {0, 2, 3})  # others: offline
        for a, ids in own.items():
            begin = int(np.argmax(mark_T == a))
            closed = [*turn_end, *ids] if rows.truncated[b, a - 2] else ids
            assert rows.tokens[b, begin - len(closed) : begin].tolist() == closed
            if a == 3:
                assert mark_T[begin - len(closed) - 1] == 2
    assert loop.train(settings, str(tmp_path / "run")) == loop.DONE
    for row in metrics_of(tmp_path / "run"):
        assert row["logp_gap"] < 1e-4 and "reward/attempt3" in row
    lines = (tmp_path / "run" / "transcripts" / "stage2.jsonl").read_text().splitlines()
    trained = run_of(settings, tmp_path / "run")
    params = trained.params_of("stage2")
    for line in map(json.loads, lines):
        texts = [attempt["text"] for attempt in line["attempts"]]
        cut = [attempt["truncated"] for attempt in line["attempts"]]
        assert len(texts) == 3
        # Each attempt is what greedy decoding of one attempt gives after its own instruction.
        row = trained.experiment.template.first_turn(line["problem"])
        for a, (said, was_cut) in enumerate(zip(texts, cut, strict=True), start=1):
            row += own.get(a, [])
            logits = transformer.logits(trained.experiment.model, params, np.array([row]))
            first = int(np.argmax(logits[0, -1]))
            assert text.decode([first]) == (said[:1] or ".")
            row += text.encode(said) + (turn_end if was_cut else text.encode("."))


def test_an_adaptive_kl_coefficient_is_part_of_the_checkpoint(tmp_path):
    settings = with_stages(tiny("score"), kl_target=1e-3, steps=3)
    assert loop.train(settings, str(tmp_path / "whole")) == loop.DONE
    rows = {(r["stage"], r["step"]): r for r in metrics_of(tmp_path / "whole")}
    held = [rows["stage1", i]["kl_coefficient"] for i in (1, 2, 3)]
    assert held[0] == settings.stages["stage1"].kl_attempt1
    for i in (1, 2):
        kl = rows["stage1", i]["kl/attempt1"]
        assert held[i] == pytest.approx(adaptive.next_coefficient(held[i - 1], kl, 1e-3))
    assert rows["stage2", 1]["kl_coefficient"] == settings.stages["stage2"].kl_attempt1
    with pytest.raises(Crash):  # in stage1, after step 2
        loop.train(settings, str(tmp_path / "killed"), stop=AfterCalls(5, Crash))
    assert loop.train(settings, str(tmp_path / "killed")) == loop.DONE
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")


def test_the_kl_terms_of_stage_1b_are_against_stage_1a(tmp_path):
    settings = tiny("three_attempts")
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    rows = {(r["stage"], r["step"]): r for r in metrics_of(tmp_path)}
    assert abs(rows["stage1b", 1]["kl/attempt1"]) < 1e-5
    assert abs(rows["stage2", 1]["kl/attempt1"]) > 1e-4
    assert "reward/attempt3" in rows["stage1b", 1] and "reward/attempt3" not in rows["stage1a", 1]


def test_answers_and_verdicts_are_graded_apart(tmp_path):
    settings = tiny("selective")
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    row = next(row for row in metrics_of(tmp_path) if row["stage"] == "stage1")
    assert 0.0 <= row["verdict_right"] <= 1.0
    details = json.loads((tmp_path / "evaluations" / "stage2.json").read_text())["details"]
    assert set(details["selective"]) == {"verdict_accuracy", "kept", "without_verdict"}
    run = run_of(settings, tmp_path)
    episodes = Episodes(run, stage_of(run, "stage1"))
    graded = episodes.graded(episodes.dispatch(run.params_of("base"), 1))
    marks = run.experiment.marks
    true_BA = selective.true_verdicts(graded.own.texts, graded.solved_BA, marks)
    answers = [selective.answers(row, marks)[1] for row in graded.own.texts]
    answered_B = np.array([even_length(None, [text], "")[0].reward for text in answers])
    cut_B = selective.truncated(graded.own.texts, graded.sampled.truncated, marks)[:, 1]
    np.testing.assert_array_equal(graded.reward_BA[:, 1], np.where(cut_B, 0.0, answered_B))
    np.testing.assert_array_equal(graded.true_BA, true_BA)
    batch, _ = episodes.batch(episodes.dispatch(run.params_of("base"), 1))
    assert batch.true_verdict.shape == batch.reward.shape


def test_verdicts_need_a_prompt_that_asks_for_them(tmp_path):
    with pytest.raises(InputError, match=r"verdict=0.5 rewards verdicts, and the prompt"):
        loop.train(with_stages(tiny("score"), verdict=0.5), str(tmp_path))


def test_an_alarm_is_told_in_the_log_once_a_stage(tmp_path, capsys):
    found = [alarms.Alarm("copying", "second attempts repeat the first", "Do something.")]
    with mock.patch.object(
        loop.alarms, "of_steps", lambda rows, dtype, **_: found * (len(rows) > 1)
    ):
        assert loop.train(with_stages(tiny("score"), steps=3), str(tmp_path)) == loop.DONE
    said = [line for line in capsys.readouterr().out.splitlines() if "ALARM in stage" in line]
    assert said == [
        f"ALARM in {stage}: second attempts repeat the first. Do something."
        for stage in ("stage1", "stage2")
    ]


def test_recipes_have_equal_budgets():
    for name, stages in SPEC["RECIPES"].items():
        if name != "base":
            trained = [stage for stage in stages.values() if stage is not SPEC["BASE"]]
            sampled = [stage.collect.steps or stage.steps for stage in trained]
            assert sum(stage.steps for stage in trained) == sum(sampled) == SPEC["STEPS"], name


def test_the_laptops_recipes_have_the_same_warm_start_and_budget():
    ours, theirs = (
        resolve(laptop_smollm2_135m.get_config(name)) for name in ("score", "multi_turn_rl")
    )
    assert ours.rollout == theirs.rollout and ours.problems == theirs.problems
    assert ours.stages["base"] == theirs.stages["base"]
    ours_rl, theirs_rl = (
        [stage for stage in s.stages.values() if stage.objective == "rl"] for s in (ours, theirs)
    )
    assert sum(s.steps for s in ours_rl) == sum(s.steps for s in theirs_rl) > 0
    with pytest.raises(ValueError, match="known: score, multi_turn_rl, base"):
        laptop_smollm2_135m.get_config("scroe")
