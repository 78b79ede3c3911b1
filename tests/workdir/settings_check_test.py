"""Whose settings a work directory is of, and runs that begin behind another one's base model."""

import dataclasses
import json
import pathlib
import re
import shutil
import stat

import jax
import numpy as np
import pytest

from score_jax import jsonfiles, loop
from score_jax.checkpoints import Checkpoints
from score_jax.config.build import resolve, to_config_dict
from score_jax.config.settings import Settings
from score_jax.problem import InputError
from score_jax.run import Run
from score_jax.workdir import settings_check
from tests import fakes
from tests.loop_test import metrics_of, tiny_settings

ROOT = pathlib.Path(__file__)
pytestmark = pytest.mark.usefixtures("quick_compile")


def params_of(folder, settings, stage: str):
    run = Run.start(settings, folder, fakes.NO_LOG, None)  # type: ignore[arg-type]
    return jax.device_get(run.params_of(stage))


def changed(settings: Settings, stage: str, **changes) -> Settings:
    stages = {**settings.stages, stage: dataclasses.replace(settings.stages[stage], **changes)}
    return dataclasses.replace(settings, stages=stages)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_compile):
    folder = tmp_path_factory.mktemp("finished")
    assert loop.train(tiny_settings(recipe=("base",)), str(folder)) == loop.DONE
    return folder


def test_a_run_is_complete_until_a_file_of_it_is_missing(finished, tmp_path):
    settings = tiny_settings(recipe=("base",))
    assert settings_check.is_complete(finished, settings)
    assert not settings_check.is_complete(finished, changed(settings, "base", steps=4))
    for name in ("report/summary.json", "evaluations/base.json", "checkpoints/base/3"):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(finished, folder)
        (folder / name).rename(tmp_path / "elsewhere")
        assert not settings_check.is_complete(folder, settings)
        (tmp_path / "elsewhere").rename(folder / name)


def test_a_run_begins_behind_the_base_model_of_another(finished, tmp_path):
    settings = changed(tiny_settings(name="other", recipe=("base", "stage2")), "stage2", bonus=2.0)
    assert loop.train(settings, str(tmp_path), base_from=str(finished)) == loop.DONE
    rows = metrics_of(tmp_path)
    assert [(r["stage"], r["step"]) for r in rows] == [
        *(("base", i) for i in (1, 2, 3)),
        *(("stage2", i) for i in (1, 2)),
    ]
    assert rows[:3] == metrics_of(finished)
    jax.tree.map(
        np.testing.assert_array_equal,
        params_of(tmp_path, settings, "base"),
        params_of(finished, tiny_settings(recipe=("base",)), "base"),
    )
    assert (tmp_path / "evaluations" / "base.json").exists()
    # Once begun, the run is its own.
    assert loop.train(settings, str(tmp_path), base_from="nowhere") == loop.DONE


class Died(Exception):
    """Stands for a process that dies."""


@pytest.mark.parametrize(
    ("owner", "name"),
    [(shutil, "copyfile"), (settings_check.jsonfiles, "write"), (type(ROOT), "rename")],
)
def test_a_start_behind_another_base_model_that_died_is_made_again(
    finished, tmp_path, monkeypatch, owner, name
):
    settings = changed(tiny_settings(recipe=("base", "stage2")), "stage2", steps=1)

    def dies(*arguments, **options):
        if name == "copyfile":  # in the middle
            pathlib.Path(arguments[1]).write_bytes(b"half")
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dies)
        with pytest.raises(Died):
            settings_check.take_base(tmp_path, finished, settings)
    settings_check.check_same_settings(tmp_path, settings)
    settings_check.take_base(tmp_path, finished, settings)
    made = tmp_path / "checkpoints" / "base" / "3"
    theirs = finished / "checkpoints" / "base" / "3"
    files = [p.relative_to(theirs) for p in theirs.rglob("*") if p.is_file()]
    assert files and all((made / p).read_bytes() == (theirs / p).read_bytes() for p in files)
    # Weights that cannot be loaded, or a kill before the first step, are after this: it goes on.
    settings_check.check_same_settings(tmp_path, settings)
    settings_check.take_base(tmp_path, finished, settings)
    assert metrics_of(tmp_path) == metrics_of(finished)


def test_a_base_model_is_taken_from_a_run_that_cannot_be_written(finished, tmp_path):
    other, folder = tmp_path / "other", tmp_path / "run"
    shutil.copytree(finished, other)
    (other / "compile_cache").mkdir(exist_ok=True)
    (other / "compile_cache" / "program").write_text("theirs")
    # What an earlier start left, which copied the modes too.
    left = [folder / "base_from.part" / "state", folder / "compile_cache"]
    for path in left:
        path.mkdir(parents=True)
        (path / "program").write_text("left")
    for path in sorted([*other.rglob("*"), *folder.rglob("*")], reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    settings = changed(tiny_settings(recipe=("base", "stage2")), "stage2", steps=1)
    settings_check.take_base(folder, other, settings)
    assert (folder / "compile_cache" / "program").read_text() == "theirs"
    assert not (folder / "base_from.part").exists()
    assert not (folder / "checkpoints" / "base" / "3" / "state" / "program").exists()
    copied = [folder / "compile_cache", *folder.rglob("*")]
    assert all(path.stat().st_mode & stat.S_IWUSR for path in copied)


def test_a_base_model_without_its_metrics_is_refused(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    (other / "metrics.jsonl").unlink()
    settings = tiny_settings(recipe=("base", "stage2"))
    with pytest.raises(InputError) as refused:
        settings_check.take_base(tmp_path / "run", other, settings)
    assert f"{other / 'metrics.jsonl'} is missing" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_more_steps_than_a_run_had_are_refused_with_the_way_to_train_on(finished):
    longer = changed(tiny_settings(recipe=("base",)), "base", steps=9)
    with pytest.raises(InputError) as refused:
        settings_check.check_same_settings(finished, longer)
    said = str(refused.value)
    assert f"--config.model.source={finished} --config.recipe=\"('base',)\"" in said
    assert "stages.base.steps: 3 there, 9 now" in said


def test_fewer_steps_than_a_run_had_are_refused_in_words_that_are_true(finished):
    shorter = changed(tiny_settings(recipe=("base",)), "base", steps=1)
    with pytest.raises(InputError) as refused:
        settings_check.check_same_settings(finished, shorter)
    assert "cannot be changed" in str(refused.value) and "longer" not in str(refused.value)


def with_(settings: Settings, **values) -> Settings:
    """The settings with some of them changed, by their names."""
    tree = to_config_dict(settings)
    with tree.unlocked():
        tree.update_from_flattened_dict(values)
    return resolve(tree)


SOLUTIONS = {"problems.name": "jsonl", "problems.prompt": "", "problems.path": "x"}
SOLUTIONS |= {"problems.prompt_text": "{problem}", "problems.instruction_text": "?"}
CORRECTED = SOLUTIONS | {"stages.base.documents.corrections": 0.1}
SAMPLED = {"stages.base.collect.filter": "first", "stages.base.collect.steps": 1}
LEFT_OUT = SOLUTIONS | {"left_out": 1.0}


@pytest.mark.parametrize(
    ("base", "setting", "value", "matters"),
    [
        # Of any base model.
        ({}, "stages.stage1.bonus", 3.0, False),
        ({}, "evaluation.problems", 3, False),
        ({}, "problems.test.split", "train", False),
        ({}, "seed", 3, True),
        ({}, "model.dtype", "bfloat16", True),
        ({}, "optimizer.beta2", 0.5, True),
        ({}, "problems.prompt", "arithmetic_selective", True),
        ({}, "stages.base.learning_rate", 0.5, True),
        # Given documents are neither sampled nor graded.
        ({}, "rewards.function", "own:reward", False),
        ({}, "rewards.truncated", -1.0, False),
        ({}, "rollout.samples_per_problem", 4, False),
        ({}, "rollout.temperature", 0.5, False),
        ({}, "rollout.max_attempt_tokens", 9, False),
        ({"stages.base.normalizer": "constant"}, "rollout.max_attempt_tokens", 9, True),
        ({"stages.base.documents_per_step": 0}, "rollout.samples_per_problem", 4, True),
        (SOLUTIONS, "problems.instruction_text", "??", False),
        (SOLUTIONS, "problems.prompt_text", "{problem}?", True),
        (SOLUTIONS, "rollout.max_prompt_tokens", 99, False),
        (SOLUTIONS, "stages.base.documents.share", 0.5, True),
        (CORRECTED, "problems.instruction_text", "??", True),
        (CORRECTED, "problems.stop_before", ("x",), True),
        (LEFT_OUT, "rollout.max_prompt_tokens", 99, True),
        # Sampled ones are.
        (SAMPLED, "rewards.function", "own:reward", True),
        (SAMPLED, "rollout.temperature", 0.5, True),
        (SAMPLED, "stages.stage1.bonus", 3.0, False),
    ],
)
def test_a_base_model_is_taken_unless_its_weights_depend_on_what_differs(
    tmp_path, base, setting, value, matters
):
    theirs = with_(tiny_settings(), **{k: v for k, v in base.items() if k != "left_out"})
    other = tmp_path / "other"
    (other / "checkpoints" / "base" / "3").mkdir(parents=True)
    jsonfiles.write(other / "config.json", {"settings": jsonfiles.plain(theirs)})
    row = {"stage": "base", "step": 1, "documents_left_out": base.get("left_out", 0.0)}
    jsonfiles.write_lines(other / "metrics.jsonl", [row])
    ours = with_(theirs, **{setting: value})
    if matters:
        with pytest.raises(InputError, match=rf"Differing: {re.escape(setting)}: "):
            settings_check.take_base(tmp_path / "ours", other, ours)
    else:
        settings_check.take_base(tmp_path / "ours", other, ours)
    assert (tmp_path / "ours" / "checkpoints").exists() != matters


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (tiny_settings(recipe=("stage1",)), "has none"),
        (tiny_settings(seed=1), "seed: 0 there, 1 now"),
        (changed(tiny_settings(), "base", learning_rate=1.0), "base.learning_rate"),
        (changed(tiny_settings(), "base", steps=9), "base/9"),
    ],
)
def test_a_base_model_of_other_settings_is_refused(finished, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        loop.train(settings, str(tmp_path / "run"), base_from=str(finished))
    assert not (tmp_path / "run").exists()


def test_a_setting_that_is_newer_than_the_folder_has_its_default_there(finished, tmp_path):
    saved = json.loads((finished / "config.json").read_text())
    del saved["settings"]["scaling"], saved["settings"]["stages"]["stage1"]["kl_target"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    (tmp_path / "checkpoints" / "base" / "3").mkdir(parents=True)  # binds the folder
    settings = tiny_settings(recipe=("base",))
    settings_check.check_same_settings(tmp_path, settings)
    with pytest.raises(InputError, match=r"stages.stage1.kl_target: 0.0 there, 1.0 now"):
        settings_check.check_same_settings(tmp_path, changed(settings, "stage1", kl_target=1.0))


def test_the_best_step_is_the_newest_of_those_with_the_best_last_attempt(tmp_path):
    saved = Checkpoints(tmp_path, tiny_settings(), {})
    assert saved.best_step("stage1") is None
    for name, first, last in [
        ("base", 0.9, 0.9),
        ("stage1-20", 0.1, 0.5),
        ("stage1-100", 0.1, 0.5),
        ("stage1-40", 0.8, 0.4),
        ("stage1-x-7", 0.9, 0.9),
        ("stage1", 0.9, 0.9),
    ]:
        metrics = {"n": 4, "accuracy_attempt1": first, "accuracy_attempt2": last}
        jsonfiles.write(tmp_path / "evaluations" / f"{name}.json", metrics)
    assert saved.best_step("stage1") == 100


def test_the_last_of_ten_attempts_is_the_tenth(tmp_path):
    saved = Checkpoints(tmp_path, tiny_settings(), {})
    for step, last in ((10, 0.1), (20, 0.7)):
        metrics = {f"accuracy_attempt{i}": 0.5 for i in range(1, 10)}
        metrics |= {"accuracy_attempt9": 0.9 - last, "accuracy_attempt10": last}
        jsonfiles.write(tmp_path / "evaluations" / f"stage1-{step}.json", metrics)
    assert saved.best_step("stage1") == 20


def test_a_folder_that_only_one_process_sees_is_refused(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    settings_check.check_shared(tmp_path)
    monkeypatch.setattr(settings_check.hosts, "exchange", lambda seen: [seen, True, False])
    with pytest.raises(InputError, match=r"processes 2 do not see what process 0 writes"):
        settings_check.check_shared(tmp_path)


def leave_a_failed_run(folder, settings: Settings) -> None:
    """A run that has evaluated and logged a step, and has saved nothing."""
    jsonfiles.write(folder / "config.json", {"settings": jsonfiles.plain(settings)})
    jsonfiles.write(folder / "evaluations" / "base.json", {"n": 1, "interval": {}})
    jsonfiles.write_lines(folder / "metrics.jsonl", [{"stage": "base", "step": 1}])


def test_a_run_without_a_checkpoint_is_started_again_with_other_settings(tmp_path):
    settings = tiny_settings()
    leave_a_failed_run(tmp_path, settings)
    settings_check.start_over(tmp_path, settings)  # the same: the run goes on
    assert (tmp_path / "evaluations" / "base.json").exists()
    other = dataclasses.replace(settings, seed=1)
    settings_check.check_same_settings(tmp_path, other)
    settings_check.start_over(tmp_path, other)
    assert [path.name for path in tmp_path.iterdir()] == ["before-1"]
    leave_a_failed_run(tmp_path, settings)
    assert loop.train(changed(other, "base", steps=1), str(tmp_path)) == loop.DONE
    assert (tmp_path / "before-2" / "evaluations" / "base.json").exists()
    assert json.loads((tmp_path / "evaluations" / "base.json").read_text())["n"] == 16


@pytest.mark.parametrize("what", ["reference", "adapters", "not read"])
def test_a_source_whose_weights_have_changed_is_refused_where_they_are_read_again(
    tmp_path, monkeypatch, what
):
    settings = tiny_settings(recipe=("base",) if what != "reference" else ("stage1",))
    lora = dataclasses.replace(settings.model.lora, rank=2 if what == "adapters" else 0)
    model = dataclasses.replace(settings.model, source="weights", lora=lora)
    settings, found = dataclasses.replace(settings, model=model), ["1"]
    monkeypatch.setattr(settings_check.weights, "fingerprint", lambda source: found[-1])
    facts = {settings_check.SOURCE_FILES: "1"}
    jsonfiles.write(tmp_path / "config.json", {"settings": jsonfiles.plain(settings)} | facts)
    found.append("2")
    settings_check.check_same_source(tmp_path, settings)  # nothing has been trained
    (tmp_path / "checkpoints" / settings.recipe[0] / "2").mkdir(parents=True)
    if what == "not read":
        settings_check.check_same_source(tmp_path, settings)
        return
    named = "the reference of its KL terms" if what == "reference" else "the frozen weights of its"
    with pytest.raises(InputError, match=rf"source=weights have changed since .* {named}"):
        settings_check.check_same_source(tmp_path, settings)
    found.append("1")
    settings_check.check_same_source(tmp_path, settings)


@pytest.mark.parametrize("text", ["", '{"settings": {'])
def test_settings_that_cannot_be_read_matter_only_beside_checkpoints(tmp_path, text):
    leave_a_failed_run(tmp_path, tiny_settings())
    (tmp_path / "config.json").write_text(text)
    settings_check.check_same_settings(tmp_path, tiny_settings())
    settings_check.start_over(tmp_path, tiny_settings())
    assert [path.name for path in tmp_path.iterdir()] == ["before-1"]
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "checkpoints" / "base" / "2").mkdir(parents=True)
    with pytest.raises(InputError, match="are not known"):
        settings_check.check_same_settings(tmp_path, tiny_settings())


def test_setting_a_run_aside_that_was_killed_on_the_way_is_ended_by_the_next_start(
    tmp_path, monkeypatch
):
    settings = tiny_settings()
    leave_a_failed_run(tmp_path, settings)
    other, moved, real = dataclasses.replace(settings, seed=1), [], pathlib.Path.rename

    def rename(path, target):
        if moved:
            raise Died
        moved.append(path)
        return real(path, target)

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(pathlib.Path, "rename", rename)
        settings_check.start_over(tmp_path, other)
    settings_check.start_over(tmp_path, other)
    assert {path.name for path in tmp_path.iterdir()} == {"before-1", "before-2"}


def test_a_checkpoint_binds_a_folder_to_its_settings(tmp_path):
    settings = tiny_settings()
    leave_a_failed_run(tmp_path, settings)
    (tmp_path / "checkpoints" / "base" / "2").mkdir(parents=True)
    other = dataclasses.replace(settings, seed=1)
    with pytest.raises(InputError, match="seed: 0 there, 1 now"):
        settings_check.check_same_settings(tmp_path, other)
    # Another process that samples with the same weights changes nothing.
    rollout = dataclasses.replace(settings.rollout, engine="socket:/tmp/engine")
    settings_check.check_same_settings(tmp_path, dataclasses.replace(settings, rollout=rollout))
    settings_check.start_over(tmp_path, other)
    assert (tmp_path / "config.json").exists()
