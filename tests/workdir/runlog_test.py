import io
import json
import time

import numpy as np
import pytest

from score_jax.problem import InputError
from score_jax.workdir import runlog
from tests.workdir import events_test

_ORDER = ("stage1", "stage2")


def _log(workdir, **kwargs):
    return runlog.RunLog(workdir, stream=io.StringIO(), **kwargs)


def _log_two_stages(workdir):
    """Four steps of each stage."""
    with _log(workdir) as log:
        for i, stage in enumerate(_ORDER):
            log.start_stage(stage, steps=4, steps_before=4 * i)
            for step in range(1, 5):
                log.log(step, {"loss": np.float32(step)})


def _places(workdir):
    return [(row["stage"], row["step"]) for row in runlog.read_metrics(workdir)]


def _events(workdir):
    return events_test.read(workdir / "tensorboard")


def test_each_step_is_one_line_with_stage_step_and_time(tmp_path):
    _log_two_stages(tmp_path)
    assert _places(tmp_path) == [(stage, step) for stage in _ORDER for step in range(1, 5)]
    rows = runlog.read_metrics(tmp_path)
    assert list(rows[0]) == ["stage", "step", "wall_sec", "loss"]
    assert rows[2]["loss"] == 3.0
    seconds = [row["wall_sec"] for row in rows]
    assert seconds == sorted(seconds)


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path):
    log = _log(tmp_path)
    log.start_stage("stage1", steps=9)
    log.log(1, {"loss": 1.0})
    assert _places(tmp_path) == [("stage1", 1)]
    log.close()


def test_a_loss_that_is_not_finite_is_written_as_null(tmp_path):
    with _log(tmp_path) as log:
        log.start_stage("stage1", steps=1)
        log.log(1, {"loss": float("nan")})
    assert '"loss": null' in (tmp_path / "metrics.jsonl").read_text()


def test_a_resumed_run_has_each_step_once(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log:
        log.truncate_after(_ORDER, "stage2", 2)
        assert _places(tmp_path)[-1] == ("stage2", 2)
        log.start_stage("stage2", steps=4, steps_before=4)
        for step in (3, 4):
            log.log(step, {"loss": 0.0})
    assert _places(tmp_path) == [(stage, step) for stage in _ORDER for step in range(1, 5)]


def test_resuming_an_earlier_stage_drops_the_later_one(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log:
        log.truncate_after(_ORDER, "stage1", 3)
    assert _places(tmp_path) == [("stage1", 1), ("stage1", 2), ("stage1", 3)]


def test_starting_over_drops_every_line(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log:
        log.truncate_after(_ORDER, "stage1", 0)
    assert _places(tmp_path) == []


def test_samples_after_a_resume_are_dropped_where_metrics_are_lost_too(tmp_path):
    with _log(tmp_path) as log:
        log.start_stage("stage1", steps=4)
        for step in (1, 2, 3):
            log.write_samples(step, [{"row": 0}])
        log.truncate_after(_ORDER, "stage1", 2)
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_clock_time_continues_after_a_resume(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "stage1", "step": 1, "wall_sec": 500.0}\n')
    with _log(tmp_path) as log:
        assert log.wall_sec < 100
        log.truncate_after(_ORDER, "stage1", 1)
        assert 500 <= log.wall_sec < 600


def test_a_torn_last_line_is_dropped(tmp_path):
    _log_two_stages(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert len(_places(tmp_path)) == 7
    with _log(tmp_path) as log:  # and what is logged next is not glued to it
        log.start_stage("stage2", steps=4, steps_before=4)
        log.log(4, {"loss": 0.0})
    assert _places(tmp_path) == [(stage, step) for stage in _ORDER for step in range(1, 5)]


def test_lines_that_are_no_rows_are_dropped_as_torn_ones_are(tmp_path):
    _log_two_stages(tmp_path)
    path = tmp_path / "metrics.jsonl"
    rows = path.read_text()
    bad = [{"stage": ["x"], "step": 1}, {"stage": "stage1", "step": "1"}, {"step": 1}, [], None]
    path.write_text("".join(json.dumps(line) + "\n" for line in bad) + rows)
    assert len(_places(tmp_path)) == len([*runlog.each_row(path)]) == 8
    with _log(tmp_path) as log:
        log.truncate_after(_ORDER, "stage2", 4)
    assert path.read_text() == rows


def test_a_folder_in_place_of_the_metrics_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=r"metrics.jsonl is not a file"):
        _log(tmp_path)
    with pytest.raises(InputError, match=r"metrics.jsonl is not a file"):
        runlog.read_metrics(tmp_path)


def test_metrics_of_another_recipe_are_refused_and_kept(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log, pytest.raises(InputError, match=r"'stage1'.*workdir"):
        log.truncate_after(("sft",), "sft", 0)
    assert len(_places(tmp_path)) == 8


def test_tensorboard_has_the_same_scalars_on_one_axis(tmp_path):
    _log_two_stages(tmp_path)
    scalars = [
        (event.step, value.simple_value)
        for event in _events(tmp_path)
        for value in event.summary.value
        if value.tag == "loss"
    ]
    assert scalars == [(i + 1, float(i % 4 + 1)) for i in range(8)]


def test_tensorboard_hides_the_steps_that_a_resumed_run_repeats(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log:
        log.truncate_after(_ORDER, "stage2", 2)
        log.start_stage("stage2", steps=4, steps_before=4)
        log.log(3, {"loss": 0.0})
    starts = [event.step for event in _events(tmp_path) if event.HasField("session_log")]
    assert starts == [1, 7]


def test_config_names_settings_versions_device_and_command(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/score_jax/main.py", "--config=c.py", "--workdir=a b"])
    with _log(tmp_path) as log:
        log.write_config({"seed": 1, "mesh": {"data": 2}}, device="cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"] == {"seed": 1, "mesh": {"data": 2}}
    assert config["device"] == "cpu"
    assert config["versions"]["numpy"] == np.__version__
    assert config["command"] == "python -m score_jax.main --config=c.py '--workdir=a b'"
    assert set(config) == {"settings", "versions", "git_revision", "device", "command"}
    monkeypatch.setattr("sys.argv", ["/x/notebook.py"])
    with _log(tmp_path) as log:
        log.write_config({}, device="cpu")
    assert json.loads((tmp_path / "config.json").read_text())["command"] is None


def test_samples_of_steps_that_are_repeated_are_dropped(tmp_path):
    _log_two_stages(tmp_path)
    with _log(tmp_path) as log:
        for stage, step in (("stage1", 4), ("stage2", 1), ("stage2", 4)):
            log.start_stage(stage, steps=4)
            log.write_samples(step, [{"id": "a"}, {"id": "b"}])
        log.truncate_after(_ORDER, "stage2", 2)
    rows = runlog.read_rows(tmp_path / runlog.SAMPLES)
    assert [(r["stage"], r["step"], r["id"]) for r in rows] == [
        ("stage1", 4, "a"), ("stage1", 4, "b"), ("stage2", 1, "a"), ("stage2", 1, "b"),
    ]  # fmt: skip


def test_a_copy_without_git_takes_its_revision_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_JAX_REVISION", "abc-dirty")
    assert runlog.git_revision() != "abc-dirty"  # a checkout knows better
    monkeypatch.setattr(runlog, "__file__", str(tmp_path / "score_jax" / "runlog.py"))
    assert runlog.git_revision() == "abc-dirty"
    monkeypatch.setenv("SCORE_JAX_REVISION", "")
    assert runlog.git_revision() is None


def test_evaluations_and_transcripts_have_their_places(tmp_path):
    with _log(tmp_path) as log:
        log.write_evaluation("base", {"n": 3}, "1a")
        log.write_transcripts("base", [{"problem": "1+1"}, {"problem": "π"}])
    assert json.loads((tmp_path / "evaluations" / "base.json").read_text()) == {
        "n": 3,
        "made_of": "1a",
    }
    lines = (tmp_path / "transcripts" / "base.jsonl").read_text().splitlines()
    assert [json.loads(line)["problem"] for line in lines] == ["1+1", "π"]


def test_a_stamp_is_in_every_file_that_says_how_a_run_went(tmp_path):
    with _log(tmp_path) as log:
        log.stamp(sandbox="none")
        log.write_config({}, device="cpu")
        log.start_stage("stage1", steps=1)
        log.log(1, {"loss": 0.5})
        log.write_evaluation("stage1", {"n": 3}, "1a")
    files = [
        tmp_path / name for name in ("config.json", "metrics.jsonl", "evaluations/stage1.json")
    ]
    assert [json.loads(file.read_text())["sandbox"] for file in files] == ["none"] * 3
    assert runlog.read_metrics(tmp_path)[0]["loss"] == 0.5


def test_only_the_primary_process_writes(tmp_path):
    with _log(tmp_path / "run", primary=False) as log:
        log.write_config({}, device="cpu")
        log.truncate_after(_ORDER, "stage1", 0)
        log.start_stage("stage1", steps=1)
        log.log(1, {"loss": 0.0})
        log.write_evaluation("base", {}, "1a")
        log.write_transcripts("base", [])
    assert not (tmp_path / "run").exists()


def test_a_work_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run.*--workdir"):
        _log(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="cannot write"):
        _log(tmp_path / "file")


def test_logging_a_step_takes_under_two_milliseconds(tmp_path):
    values = {f"group{i % 5}/attempt{i}": np.float32(i) for i in range(25)}
    times = []
    with _log(tmp_path) as log:
        log.start_stage("stage1", steps=200)
        for step in range(1, 201):
            start = time.perf_counter()
            log.log(step, values)
            times.append(time.perf_counter() - start)
    # The median: other work on the machine may hold up any one step.
    assert sorted(times)[100] < 0.002


def test_tensorboard_has_an_evaluation_as_scalars_histograms_and_text(tmp_path):
    attempts = [
        {"text": f"it is {text}", "reward": 0.7, "solved": False, "reason": "near", "tokens": 3}
        for text in ("4\n# no heading", "\ud800")
    ]
    rows = [{"id": "p", "problem": "2+3", "edit_ratio": 0.5, "attempts": attempts}] * 20
    with _log(tmp_path) as log:
        log.start_stage("stage1", steps=2)
        log.log(1, {"loss": 1.0})
        found = {"n": 20, "delta": 0.25, "interval": {"delta": [0, 1]}}
        log.show_evaluation(1, {**found, "reasons": {"attempt1": {"timeout": 0.5}}}, rows)
    found = {v.tag: (e.step, v) for e in _events(tmp_path) for v in e.summary.value}
    assert found["evaluation/delta"][1].simple_value == 0.25
    assert "evaluation/interval" not in found
    assert found["evaluation/reason/timeout/attempt1"][1].simple_value == 0.5
    assert found["evaluation/edit_ratio"][1].histo.num == 20
    assert found["evaluation/tokens"][1].histo.max == 6
    (tag,) = (tag for tag in found if tag.startswith("transcripts"))
    step, value = found[tag]
    text = value.tensor.string_val[0].decode()
    assert step == 1 and text.count("p: 2+3") == 10
    assert text.count("attempt 2 (wrong, reward 0.7, near):") == 10
    assert all(line.startswith("    ") for line in text.splitlines() if line)


def test_an_evaluation_after_a_resume_keeps_the_step_it_follows(tmp_path):
    with _log(tmp_path) as log:
        log.show_evaluation(8, {"n": 1}, [])
    assert [e.step for e in _events(tmp_path) if e.HasField("session_log")] == [9]
