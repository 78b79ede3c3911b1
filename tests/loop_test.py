"""The loop from outside: what a run leaves on disk, and that it can be stopped anywhere."""

import dataclasses
import gc
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import experiment, grading, jsonfiles, loop
from score_jax.batches import episodes
from score_jax.config.build import resolve
from score_jax.config.settings import (
    CheckpointSettings,
    CompileSettings,
    LoggingSettings,
    LoraSettings,
    ProblemSettings,
    Settings,
    SourceSettings,
)
from score_jax.model import weights
from score_jax.model.files import saved_params
from score_jax.modes import ask, evaluate
from score_jax.problem import InputError
from score_jax.run import Run
from score_jax.runtime import compiles
from score_jax.workdir import diagnosis
from tests import fakes

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("quick_compile")
# Keys that differ from run to run, or with the number of processes.
CLOCK = ("wall_sec", "sec/", "tokens_per_sec/", "exchanged_bytes")


def tiny_settings(**changes) -> Settings:
    """The quickstart with a few steps of few rows."""
    spec = {}
    exec((ROOT / "configs" / "quickstart.py").read_text(), spec)
    settings = resolve(spec["get_config"]())
    stages = {
        "base": dataclasses.replace(settings.stages["base"], steps=3, documents_per_step=8),
        "stage1": dataclasses.replace(settings.stages["stage1"], steps=4),
        "stage2": dataclasses.replace(settings.stages["stage2"], steps=2),
    }
    rollout = dataclasses.replace(
        settings.rollout, problems_per_step=8, samples_per_problem=2, turn_rows=4
    )
    settings = dataclasses.replace(
        settings,
        stages=stages,
        rollout=rollout,
        evaluation=dataclasses.replace(settings.evaluation, problems=16, batch=8),
        checkpoint=CheckpointSettings(every=2, keep=2),
        logging=LoggingSettings(samples_every=2),
    )
    return dataclasses.replace(settings, **changes)


def metrics_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(CLOCK)} for row in rows]


def final_params(folder: Path, settings: Settings):
    run = Run.start(settings, folder, fakes.NO_LOG, None)  # type: ignore[arg-type]
    return jax.device_get(run.checkpoints.params("stage2"))


class Crash(Exception):
    """Stands for a process that dies."""


class AfterCalls:
    """A `stop` that stays false for `calls` questions, then says true or raises."""

    def __init__(self, calls: int, error: type[Exception] | None = None):
        self.calls, self.error = calls, error

    def __call__(self) -> bool:
        self.calls -= 1
        if self.calls < 0 and self.error:
            raise self.error
        return self.calls < 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory, quick_compile) -> Path:
    """A run that nothing interrupted."""
    jax.clear_caches()  # so that its seconds of compiling are its own
    folder = tmp_path_factory.mktemp("whole")
    settings = tiny_settings(logging=LoggingSettings(profile="stage1:2+2", samples_every=2))
    assert loop.train(settings, str(folder)) == loop.DONE
    return folder


def test_a_run_leaves_what_the_contract_names(whole):
    rows = metrics_of(whole)
    assert [(r["stage"], r["step"]) for r in rows] == [
        *(("base", i) for i in (1, 2, 3)),
        *(("stage1", i) for i in (1, 2, 3, 4)),
        *(("stage2", i) for i in (1, 2)),
    ]
    keys = ("reward", "kl", "entropy", "length", "truncated")
    wanted = {f"{key}/attempt{a}" for key in keys for a in (1, 2)}
    wanted |= {"changed", "logp_gap", "loss", "grad_norm", "learning_rate"}
    reasons = ("truncated", "no_answer", "unparseable", "timeout", "crash", "refused")
    wanted |= {f"reason/{reason}/attempt{a}" for reason in reasons for a in (1, 2)}
    assert wanted <= rows[-1].keys()
    for a in (1, 2):
        shares = {k: v for k, v in rows[-1].items() if re.fullmatch(rf"reason/\w+/attempt{a}", k)}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares[f"reason/truncated/attempt{a}"] == rows[-1][f"truncated/attempt{a}"]
        assert shares.get(f"reason/equal/attempt{a}", 0.0) == rows[-1][f"solved/attempt{a}"]
    raw = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    for kind in ("rollout", "update"):
        assert raw[f"sec/{kind}"] > 0 and raw[f"tokens_per_sec/{kind}"] > 0
    assert raw["sec/grade"] > 0
    summary = json.loads((whole / "report" / "summary.json").read_text())
    assert list(summary["stages"]) == ["base", "stage1", "stage2"]
    for stage, m in summary["stages"].items():
        assert m["n"] == 16
        assert m["delta"] == m["incorrect_to_correct"] - m["correct_to_incorrect"]
        assert m["incorrect_to_correct"] == m["format_repaired"] + m["answer_repaired"]
        assert m["lenient_attempt2"] == m["accuracy_attempt2"]  # the task has no lenient form
        transcripts = (whole / "transcripts" / f"{stage}.jsonl").read_text().splitlines()
        assert len(transcripts) == 16
        assert len(json.loads(transcripts[0])["attempts"]) == 2
        for a in (1, 2):
            shares = m["reasons"][f"attempt{a}"]
            assert shares["truncated"] == m[f"truncated_attempt{a}"]
            assert shares.get("equal", 0.0) == m[f"accuracy_attempt{a}"] and shares["crash"] == 0
    saved = json.loads((whole / "config.json").read_text())
    assert saved["settings"]["stages"]["stage2"]["bonus"] == 10.0
    assert {"jax", "flax", "optax", "orbax-checkpoint"} <= saved["versions"].keys()
    assert saved["sent"]["instruction"] == "?" and saved["sent"]["prompt"].endswith("=")


def samples_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_training_samples_have_reward_advantage_group_and_reason(whole):
    rows, metrics = samples_of(whole), metrics_of(whole)
    settings = tiny_settings()
    group = settings.rollout.samples_per_problem
    steps = [("stage1", 1), ("stage1", 2), ("stage1", 4), ("stage2", 1), ("stage2", 2)]
    assert sorted({(r["stage"], r["step"]) for r in rows}) == steps
    for stage, step in steps:
        of_stage = [r for r in rows if (r["stage"], r["step"]) == (stage, step)]
        assert [r["sample"] for r in of_stage] == [i % group for i in range(len(of_stage))]
        assert len(of_stage) == settings.rollout.rows
        row = next(r for r in metrics if (r["stage"], r["step"]) == (stage, step))
        for a in (0, 1):
            for first in range(0, len(of_stage), group):
                some = of_stage[first : first + group]
                assert len({r["id"] for r in some}) == 1
                # Less the mean of the others, they add up to 0.
                assert sum(r["attempts"][a]["advantage"] for r in some) == pytest.approx(
                    0, abs=1e-4
                )
            sizes = [abs(r["attempts"][a]["advantage"]) for r in of_stage]
            assert np.mean(sizes) == pytest.approx(row[f"advantage/attempt{a + 1}"], rel=1e-4)
            rewards = [r["attempts"][a]["reward"] for r in of_stage]
            assert np.mean(rewards) == pytest.approx(row[f"reward/attempt{a + 1}"])
            assert {r["attempts"][a]["reason"] for r in of_stage} <= {
                re.sub("^reason/|/attempt.$", "", k) for k in row if k.startswith("reason/")
            }
    page = (whole / "report" / "index.html").read_text()
    assert '"stage1, step 1"' in page and '"alive":true' in page and '"finished":true' in page


def test_what_is_not_part_of_a_step_has_seconds_of_its_own(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for before, row in itertools.pairwise([{"wall_sec": 0.0}, *rows]):
        parts = sum(row[f"sec/{name}"] for name in ("compile", "evaluation", "save"))
        assert parts < row["wall_sec"] - before["wall_sec"]
    by_step = {(row["stage"], row["step"]): row for row in rows}
    # Steps 1 compile; steps 2 and 4 are saved, and logged before that; evaluations follow a stage.
    for stage in ("base", "stage1"):
        assert by_step[stage, 1]["sec/compile"] > 10 * by_step[stage, 2]["sec/compile"]
    assert by_step["stage1", 3]["sec/save"] > 0 and by_step["stage1", 2]["sec/save"] == 0
    assert by_step["stage1", 1]["sec/evaluation"] > 0 and by_step["stage2", 1]["sec/evaluation"] > 0
    assert by_step["stage1", 3]["sec/evaluation"] == 0
    # A step's own parts are of running, not of compiling.
    first, second = by_step["stage1", 1], by_step["stage1", 2]
    assert first["sec/rollout"] < first["sec/compile"] > first["sec/update"]
    assert second["sec/compile"] < second["sec/rollout"]


def test_norms_are_logged_by_group(whole):
    row = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    groups = {"embedding", "attention", "mlp", "norms"}
    for name in ("grad_norm", "param_norm", "update_norm"):
        found = {key.split("/")[1]: row[key] for key in row if key.startswith(f"{name}/")}
        assert groups <= found.keys() and all(value > 0 for value in found.values())
    parts = [row[key] ** 2 for key in row if key.startswith("grad_norm/")]
    assert sum(parts) ** 0.5 == pytest.approx(row["grad_norm"], rel=1e-5)


def test_a_profile_shows_steps_and_phases(whole):
    (path,) = (whole / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    found = [event.get("name") for event in events]
    assert found.count("step") == 2
    assert {"rollout", "grade", "log_probs", "update", "save"} <= set(found)


def test_a_run_leaves_a_page_and_plots(whole):
    text = (whole / "report" / "index.html").read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["finished"]
    shown = [e["name"] for e in data["transcripts"]["evaluations"]]
    assert [name for name in shown if "step" not in name] == ["base", "stage1", "stage2"]
    assert "stage1, step 1" in shown  # training samples
    evaluated = [one for one in data["transcripts"]["problems"] if "/test/" in one[0]]
    assert len(evaluated) == 16  # the others are of training samples
    assert all("edit_ratio_histogram" in e for e in data["evaluations"])
    for name in ("accuracy", "policy"):
        assert (whole / "report" / f"{name}.png").stat().st_size > 10_000


def test_a_page_that_cannot_be_written_does_not_stop_the_run(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    run = tmp_path / "run"
    (run / "evaluations" / "stage2.json").unlink()
    shutil.rmtree(run / "report")
    (run / "report").mkdir()
    (run / "report" / "index.html").mkdir()  # where the page should go
    assert loop.train(tiny_settings(), str(run)) == loop.DONE
    assert "score_jax.report.run_page.page failed: IsADirectoryError" in capsys.readouterr().out


def test_the_trained_model_is_asked(whole, capsys):
    ask.ask_latest(tiny_settings(), whole, "3+4+5")
    said = capsys.readouterr().out
    assert "after stage2, step 2" in said and "Attempt 2" in said


def test_sampler_and_learner_agree_on_log_probs(whole):
    gaps = [row["logp_gap"] for row in metrics_of(whole) if row["stage"] != "base"]
    assert max(gaps) < 1e-5


def test_kl_is_zero_while_the_policy_is_the_reference(whole):
    first = next(row for row in metrics_of(whole) if row["stage"] == "stage1")
    assert abs(first["kl/attempt1"]) < 1e-5 and abs(first["kl/attempt2"]) < 1e-5
    later = [row for row in metrics_of(whole) if row["stage"] == "stage2"][-1]
    assert abs(later["kl/attempt2"]) > 1e-4


@pytest.fixture
def copies(monkeypatch) -> list[int]:
    """How many arrays of the embedding's shape are there after each update."""
    found, update = [], loop.step.train_step

    def counted(state, *args, **kwargs):
        result = update(state, *args, **kwargs)
        shape = result[0].params["embedding"].shape
        gc.collect()
        found.append(sum(x.shape == shape for x in jax.live_arrays()))
        return result

    monkeypatch.setattr(loop.step, "train_step", counted)
    return found


STATE_AND_REFERENCE = 3 + 1  # params and two moments; what a stage started from is gone


def test_where_to_dispatch_a_rollout_is_to_wait_for_it_its_time_is_its_own(
    whole, tmp_path, monkeypatch, capsys
):
    rollout, sec = episodes.Episodes._rollout, 0.3

    def led_by_the_host(*arguments):
        time.sleep(sec)
        return jax.block_until_ready(rollout(*arguments))

    monkeypatch.setattr(episodes.Episodes, "_rollout", led_by_the_host)
    monkeypatch.setattr(loop, "_dispatch_waits", lambda: True)
    assert loop.train(tiny_settings(), str(tmp_path)) == loop.DONE
    assert metrics_of(tmp_path) == metrics_of(whole)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["stage"] != "base":
            assert row["sec/rollout"] > sec and (row["sec/update"] < sec or row["step"] == 1)
    assert re.search(
        r"model: [\d,]+ parameters, all trained; 0\.\d\d GB of weights; memory [\d.]+ GB on this",
        capsys.readouterr().out,
    )


def test_steps_and_evaluations_decode_with_one_program(tmp_path, monkeypatch):
    watches = []
    enter = compiles.Watch.__enter__
    monkeypatch.setattr(compiles.Watch, "__enter__", lambda w: watches.append(w) or enter(w))
    settings = tiny_settings(recipe=("stage1",))
    evaluation = dataclasses.replace(settings.evaluation, problems=6, batch=64)
    jax.clear_caches()
    settings = dataclasses.replace(settings, evaluation=evaluation)
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    (watch,) = watches
    assert ["decode" in program.name for program in watch.programs].count(True) == 1


# Questions are asked once before each evaluation, once per evaluation batch, and once per step.
@pytest.mark.parametrize(
    "calls", [pytest.param(1, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow), 13]
)
def test_a_stopped_run_goes_on_to_the_same_end(whole, tmp_path, calls):
    settings = tiny_settings()
    assert loop.train(settings, str(tmp_path), stop=AfterCalls(calls)) == loop.STOPPED
    assert not (tmp_path / "report" / "summary.json").exists()
    assert '"alive":false' in (tmp_path / "report" / "index.html").read_text()
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    assert metrics_of(tmp_path) == metrics_of(whole)
    assert samples_of(tmp_path) == samples_of(whole)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(tmp_path, settings),
        final_params(whole, settings),
    )


def test_a_killed_run_goes_on_from_its_last_checkpoint_bit_for_bit(
    whole, tmp_path, copies, monkeypatch, capsys
):
    settings = tiny_settings()
    code = {"same.py:f": "1", "other.py:g": "1"}
    monkeypatch.setattr(grading, "reward_code", lambda settings: dict(code))
    with pytest.raises(Crash):  # in stage1, after step 3; the last checkpoint is of step 2
        loop.train(settings, str(tmp_path), stop=AfterCalls(8, Crash))
    assert saved_params.latest_step(tmp_path / "checkpoints" / "stage1") == 2
    copies.clear()
    assert "WARNING" not in capsys.readouterr().out
    code["other.py:g"] = "2"
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    out = capsys.readouterr().out
    said = [line for line in out.splitlines() if "WARNING" in line]
    assert len(said) == 1 and "the reward other.py:g has changed" in said[0]
    assert "base is evaluated again: " in out  # else its row would be paid by the old code
    assert json.loads((tmp_path / "config.json").read_text())["reward_code"]["other.py:g"] == "1"
    assert set(copies) == {STATE_AND_REFERENCE}
    assert metrics_of(tmp_path) == metrics_of(whole)
    assert samples_of(tmp_path) == samples_of(whole)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(tmp_path, settings),
        final_params(whole, settings),
    )


def test_a_run_as_source_has_one_fingerprint_however_it_is_named(whole, monkeypatch):
    newest = weights.fingerprint(str(whole))
    monkeypatch.chdir(whole.parent)
    assert weights.fingerprint(whole.name) == newest
    assert weights.fingerprint(f"{whole.name}/checkpoints/stage1") != newest


def test_settings_without_effect_are_told():
    settings, said = lora_settings(recipe=("stage1",)), list[str]()
    for alpha, rank, warmup in ((64.0, 2, 2), (64.0, 0, 3)):
        lora = LoraSettings(rank, alpha)
        stage = dataclasses.replace(settings.stages["stage1"], steps=3, warmup_steps=warmup)
        model = dataclasses.replace(settings.model, lora=lora)
        one = dataclasses.replace(settings, model=model, stages={"stage1": stage})
        run = types.SimpleNamespace(settings=one, log=types.SimpleNamespace(say=said.append))
        loop._say_what_has_no_effect(run)  # type: ignore[arg-type]
        assert not said or not rank
    assert len(said) == 2 and "lora.rank is 0, so all weights" in said[0]
    assert "stage1: the learning rate rises during all 3 steps (warmup_steps=3)" in said[1]


def test_a_finished_run_says_so_and_does_nothing(whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    assert loop.train(tiny_settings(), str(whole)) == loop.DONE
    assert "nothing to do" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()} == before


def test_evaluation_settings_that_a_finished_run_cannot_apply_are_named(whole, capsys):
    evaluation = dataclasses.replace(tiny_settings().evaluation, problems=4)
    assert loop.train(tiny_settings(evaluation=evaluation), str(whole)) == loop.DONE
    assert re.search(
        r"Not applied, .* evaluation\.problems: 16 there, 4 now\. --mode=evaluate",
        capsys.readouterr().out,
    )


def test_an_evaluation_made_of_other_things_is_made_again_and_lost_lines_are_named(
    whole, tmp_path, capsys
):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    found = tmp_path / "evaluations"
    (tmp_path / "report" / "summary.json").unlink()
    stale = jsonfiles.read(found / "stage1.json") | {"made_of": "other problems", "n": 1}
    jsonfiles.write(found / "stage1.json", stale)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[2:]))
    assert loop.train(tiny_settings(), str(tmp_path)) == loop.DONE
    out = capsys.readouterr().out
    assert "metrics.jsonl lacks 2 of the 3 steps of base that were trained" in out
    assert "stage1 is evaluated again: " in out and "stage2 is evaluated" not in out
    for name in ("base", "stage1"):
        again, before = (
            jsonfiles.read(x / "evaluations" / f"{name}.json") for x in (tmp_path, whole)
        )
        assert again == before


def test_evaluations_that_are_lost_are_made_again_from_the_checkpoints(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    files = [tmp_path / "evaluations" / f"{name}.json" for name in ("base", "stage1", "stage2")]
    before = [json.loads(file.read_text()) for file in files]
    logged = [path.name for path in (tmp_path / "tensorboard").iterdir()]
    files[0].write_text("")
    files[1].unlink()
    (tmp_path / "report" / "summary.json").write_text('{"stages": {"ba')
    (tmp_path / "evaluations" / "stage1-2.json").write_text('{"n"')  # its checkpoint is kept
    (tmp_path / "evaluations" / "stage1-1.json").write_text('{"n"')  # its checkpoint is not
    assert loop.train(tiny_settings(), str(tmp_path)) == loop.DONE
    assert [json.loads(file.read_text()) for file in files] == before
    said = capsys.readouterr().out
    assert f"{files[0]} cannot be read" in said
    assert "stage1-1.json is to be made again, and " in said
    assert (tmp_path / "evaluations" / "stage1-2.json").exists()
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == logged
    assert list(json.loads((tmp_path / "report" / "summary.json").read_text())["stages"]) == [
        *("base", "stage1", "stage2")
    ]
    assert loop.train(tiny_settings(), str(tmp_path)) == loop.DONE
    assert "nothing to do" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoints" / "stage1" / "4")
    jsonfiles.write(files[1], before[1] | {"made_of": "other problems"})
    (tmp_path / "report" / "summary.json").unlink()
    assert loop.train(tiny_settings(), str(tmp_path)) == loop.DONE
    assert "the report shows it as it was" in capsys.readouterr().out
    files[1].unlink()
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"stage1.json is to be made again, and .*stage1/4 is missing"
        ):
            loop.train(tiny_settings(), str(tmp_path))


def test_a_work_directory_of_other_settings_is_refused_untouched(whole):
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"seed: 0 there, 1 now"):
        loop.train(tiny_settings(seed=1), str(whole))
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before


def damage(checkpoint: Path) -> None:
    """Cuts the largest file in half, as a copy that was broken off leaves it."""
    largest = max((p for p in checkpoint.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def test_a_damaged_checkpoint_is_passed_over_and_set_aside(whole, tmp_path, capsys):
    settings = tiny_settings()
    with pytest.raises(Crash):  # in stage1, after step 3
        loop.train(settings, str(tmp_path), stop=AfterCalls(8, Crash))
    checkpoints = tmp_path / "checkpoints"
    damage(checkpoints / "stage1" / "2")
    ask.ask_latest(settings, tmp_path, "1+2")
    assert "as loaded" not in capsys.readouterr().out
    assert (checkpoints / "stage1" / "2").exists()  # reading a run changes nothing in it
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    said = capsys.readouterr().out
    assert "stage1/2 is damaged" in said and "going back to base, step 3" in said
    assert {p.name for p in (checkpoints / "stage1").iterdir()} == {"2", "2.damaged", "4"}
    assert metrics_of(tmp_path) == metrics_of(whole)
    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(tmp_path, settings),
        final_params(whole, settings),
    )


def test_where_all_checkpoints_are_damaged_one_is_named_and_all_stay(whole, tmp_path):
    settings = tiny_settings()
    with pytest.raises(Crash):
        loop.train(settings, str(tmp_path), stop=AfterCalls(8, Crash))
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = sorted(tmp_path.rglob("checkpoints/*/*"))
    for _ in range(2):
        with pytest.raises(InputError, match="base/3 cannot be read"):  # the first one read
            loop.train(settings, str(tmp_path))
    assert sorted(tmp_path.rglob("checkpoints/*/*")) == before


def test_a_damaged_reference_is_named_with_what_can_be_done(whole, tmp_path):
    settings = tiny_settings()
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "stage2")
    for path in (tmp_path / "checkpoints" / "base" / "3").rglob("d/*"):  # moments are not read
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError) as refused:
        loop.train(settings, str(tmp_path))
    said = str(refused.value)
    assert "base/3 cannot be read" in said and "put back a copy of that folder" in said
    assert "delete" not in said and "\n" not in said and len(said) < 700


def test_a_last_step_that_overflows_stops_the_run_and_is_not_saved(tmp_path):
    settings = tiny_settings(recipe=("base",))
    stage = dataclasses.replace(settings.stages["base"], steps=1, learning_rate=3e38)
    optimizer = dataclasses.replace(settings.optimizer, nonfinite="skip")
    settings = dataclasses.replace(settings, stages={"base": stage}, optimizer=optimizer)
    with pytest.raises(
        InputError, match=r"step 1 of base: update_norm/\w+ is inf\. It was not saved"
    ):
        loop.train(settings, str(tmp_path))
    assert not saved_params.begun(tmp_path)
    assert diagnosis.read(tmp_path / "diagnosis" / "base-1.json").params is None


def written_problems(path: Path, count: int) -> str:
    """A file of sums that are graded by their first character."""
    rows = [
        {"id": f"{path.stem}/{n}", "problem": f"{n}+1".ljust(9) + "=", "answer": (n + 1) % 10}
        | {"grader": "first_character"}
        for n in range(count)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path.parent)


def test_more_sets_are_evaluated_and_reported_by_name(tmp_path, capsys):
    settings = tiny_settings(recipe=("base", "stage2"))
    sets = {
        name: SourceSettings("jsonl", written_problems(tmp_path / name / "test.jsonl", count))
        for name, count in (("few", 5), ("many", 20))
    }
    settings = dataclasses.replace(
        settings, problems=dataclasses.replace(settings.problems, tests=sets)
    )
    folder = tmp_path / "run"
    assert loop.train(settings, str(folder)) == loop.DONE
    said = capsys.readouterr().out
    found = json.loads((folder / "report" / "summary.json").read_text())["tests"]
    for name, n in (("few", 5), ("many", 16)):  # evaluation.problems is 16
        for stage in ("base", "stage2"):
            saved = json.loads((folder / "evaluations" / f"{stage}.{name}.json").read_text())
            assert saved["n"] == n and found[name][stage] == saved
            assert f"evaluated {stage} on {name}: " in said and f"\n{stage}.{name} " in said
            rows = (folder / "transcripts" / f"{stage}.{name}.jsonl").read_text().splitlines()
            assert len(rows) == n and json.loads(rows[0])["id"] == "test/0"
    # An evaluation of more problems than there are is one of all, and says so.
    assert "evaluation.problems=16, and the test set few has 5: all of them are evaluated." in said
    evaluate.evaluate_latest(settings, folder)
    assert json.loads((folder / "evaluations" / "latest.few.json").read_text())["n"] == 5


def test_what_is_wrong_with_problems_is_said_before_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment.weights, "shape", lambda _: pytest.fail("the model was opened"))
    settings = tiny_settings(recipe=("stage1",))
    model = dataclasses.replace(settings.model, source=str(tmp_path), tokenizer="characters")
    settings = dataclasses.replace(settings, model=model)
    rollout, problems = settings.rollout, settings.problems
    bad = written_problems(tmp_path / "own" / "test.jsonl", 5)
    for changes, said in [
        ({"problems": dataclasses.replace(problems, name="sums")}, "unknown problem set"),
        (
            {"problems": dataclasses.replace(problems, tests={"own": SourceSettings("jsonl", bad)})}
            | {"rollout": dataclasses.replace(rollout, max_prompt_tokens=9)},
            "evaluation prompts are longer than max_prompt_tokens=9",
        ),
        (
            {"rollout": dataclasses.replace(rollout, problems_per_step=20_001)},
            "a step needs 20001 different problems",
        ),
    ]:
        with pytest.raises(InputError, match=said):
            loop.train(dataclasses.replace(settings, **changes), str(tmp_path / "run"))


def test_evaluation_within_a_stage_has_a_file_of_its_own(tmp_path):
    settings = tiny_settings(recipe=("stage1",))
    evaluation = dataclasses.replace(settings.evaluation, every=2, every_problems=1)
    settings = dataclasses.replace(settings, evaluation=evaluation)
    # Stopped in the evaluation within stage1, which is made up for.
    assert loop.train(settings, str(tmp_path), stop=AfterCalls(5)) == loop.STOPPED
    assert [p.stem for p in (tmp_path / "evaluations").iterdir()] == ["base"]
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    written = sorted(p.stem for p in (tmp_path / "evaluations").iterdir())
    assert written == ["base", "stage1", "stage1-2"]
    found = {
        name: json.loads((tmp_path / f"evaluations/{name}.json").read_text()) for name in written
    }
    assert found["stage1"]["n"] == evaluation.problems > found["stage1-2"]["n"] == 1


def test_a_stage_can_be_left_out_of_the_evaluations_within(tmp_path):
    settings = tiny_settings(recipe=("stage1",))
    evaluation = dataclasses.replace(settings.evaluation, every=2, every_except=("stage1",))
    loop.train(dataclasses.replace(settings, evaluation=evaluation), str(tmp_path))
    assert sorted(p.stem for p in (tmp_path / "evaluations").iterdir()) == ["base", "stage1"]


def test_stages_without_a_base_stage_are_compared_with_the_loaded_weights(tmp_path, copies, capsys):
    settings = tiny_settings(recipe=("stage1",))
    assert loop.train(settings, str(tmp_path)) == loop.DONE
    assert set(copies) == {STATE_AND_REFERENCE}
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert list(summary["stages"]) == ["base", "stage1"]
    assert abs(metrics_of(tmp_path)[0]["kl/attempt1"]) < 1e-5
    # Random weights answer nothing, which is said before the first step.
    said = capsys.readouterr().out
    assert summary["stages"]["base"]["truncated_attempt1"] > 0.5
    assert 0 < said.index("ALARM in base: attempt 1 of the base model is") < said.index("stage1  ")


def lora_settings(**changes) -> Settings:
    """Two steps of each RL stage on adapters, after one of the stage that makes the reference."""
    settings = tiny_settings(checkpoint=CheckpointSettings(every=1, keep=2), **changes)
    stages = {
        name: dataclasses.replace(stage, steps=1 if name == "base" else 2)
        for name, stage in settings.stages.items()
    }
    model = dataclasses.replace(settings.model, lora=LoraSettings(rank=2, alpha=4.0))
    return dataclasses.replace(settings, model=model, stages=stages)


@pytest.mark.slow
def test_a_run_with_lora_trains_adapters_alone_and_resumes_bit_for_bit(tmp_path):
    settings = lora_settings()
    for name, stop in (("whole", AfterCalls(1000)), ("killed", AfterCalls(5, Crash))):
        try:
            assert loop.train(settings, str(tmp_path / name), stop=stop) == loop.DONE
        except Crash:  # in stage1, after step 2; the last checkpoint is of step 1
            assert saved_params.latest_step(tmp_path / name / "checkpoints" / "stage1") == 1
            assert loop.train(settings, str(tmp_path / name)) == loop.DONE
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert metrics_of(killed) == metrics_of(whole)
    ours = final_params(whole, settings)
    jax.tree.map(np.testing.assert_array_equal, final_params(killed, settings), ours)

    run = Run.start(settings, whole, fakes.NO_LOG, None)  # type: ignore[arg-type]
    start = jax.device_get(run.experiment.initial_params())
    assert jax.tree.structure(ours) == jax.tree.structure(start)
    assert all(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (ours, start)), strict=True))
    # What the stage named base learned is the reference, of the size of the adapters.
    reference = jax.device_get(run.base_reference("stage1"))
    assert jax.tree.structure(reference) == jax.tree.structure(start)
    rows = {(row["stage"], row["step"]): row for row in metrics_of(whole)}
    assert abs(rows["stage1", 1]["kl/attempt2"]) < 1e-5 < abs(rows["stage2", 2]["kl/attempt2"])
    assert max(row["logp_gap"] for (stage, _), row in rows.items() if stage != "base") < 1e-5


def test_with_lora_and_no_base_stage_the_reference_is_the_loaded_weights_themselves(tmp_path):
    settings = lora_settings(recipe=("stage1",))
    run = Run.start(settings, tmp_path, fakes.NO_LOG, None)  # type: ignore[arg-type]
    assert run.base_reference("stage1") == {}
    full = dataclasses.replace(settings.model, lora=LoraSettings())
    plain = experiment.Experiment.open(dataclasses.replace(settings, model=full))
    jax.tree.map(np.testing.assert_array_equal, run.experiment.base, plain.initial_params())
    start = run.experiment.merged(run.experiment.initial_params())
    jax.tree.map(np.testing.assert_array_equal, start, run.experiment.base)


def test_sigterm_saves_and_exits_75_and_the_same_command_finishes(tmp_path):
    command = [
        *(sys.executable, "-m", "score_jax.main", "--config=configs/quickstart.py:base"),
        f"--workdir={tmp_path}",
        "--config.stages.base.steps=150",
        "--config.stages.base.documents_per_step=8",
        "--config.evaluation.problems=8",
        "--config.evaluation.batch=8",
    ]
    quick = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = {**os.environ, **quick}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=120) == 75
    steps = [row["step"] for row in metrics_of(tmp_path)]
    assert 3 <= len(steps) < 150
    assert saved_params.latest_step(tmp_path / "checkpoints" / "base") == steps[-1]
    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300)
    assert second.returncode == 0, second.stderr.decode()
    rows = metrics_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 151))


@pytest.mark.slow
def test_no_step_of_mixed_lengths_compiles_after_warm_up_and_a_second_start_compiles_nothing(
    tmp_path, monkeypatch
):
    # Most batches of 8 have a longest prompt of 4 tokens, some of 6, some of 10.
    lengths = [4] * 112 + [6] * 8 + [10] * 8
    lines = [
        {"problem": "1" * (n - 1) + "=", "answer": "1", "id": f"p{i}"}
        for i, n in enumerate(lengths)
    ]
    for split in ("train", "test"):
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / f"{split}.jsonl").write_text(text)
    settings = tiny_settings(
        recipe=("stage1", "stage2"),
        compile=CompileSettings(after_warmup="fail"),
        problems=ProblemSettings("jsonl", prompt="arithmetic", path=str(tmp_path)),
        checkpoint=CheckpointSettings(every=1000, keep=1),
    )
    settings = dataclasses.replace(
        settings,
        rollout=dataclasses.replace(settings.rollout, prompt_buckets=(4, 6, 8)),
        evaluation=dataclasses.replace(settings.evaluation, every=50),
    )

    def start(name: str, **steps: int) -> dict[str, int]:
        jax.clear_caches()  # as a new process begins
        stages = {
            stage: dataclasses.replace(settings.stages[stage], steps=n)
            for stage, n in steps.items()
        }
        run = dataclasses.replace(settings, stages=stages)
        assert loop.train(run, str(tmp_path / name)) == loop.DONE
        return json.loads((tmp_path / name / "report" / "summary.json").read_text())["compiles"]

    widths = set()
    sample = episodes.Episodes._sample

    def noted(self, params, prompts, number, tokens=0):
        widths.add((prompts.tokens.shape[1], bool(tokens)))
        return sample(self, params, prompts, number, tokens)

    monkeypatch.setattr(episodes.Episodes, "_sample", noted)
    first = start("first", stage1=120, stage2=80)
    assert {width for width, warming in widths if not warming} == {4, 6, 10}
    assert first["late"] == 0 and first["compiled"] > 0
    shutil.copytree(tmp_path / "first" / "compile_cache", tmp_path / "second" / "compile_cache")
    second = start("second", stage1=2, stage2=2)
    assert (second["compiled"], second["late"]) == (0, 0)
    assert second["from_cache"] > 0
