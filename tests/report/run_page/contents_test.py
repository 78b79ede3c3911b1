"""What is read off a work directory for its page."""

import json

import pytest

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.report.run_page import contents
from score_jax.workdir.runlog import read_metrics
from tests.report.run_page import fake_runs


def test_a_finished_run_is_read_in_the_order_of_its_recipe(tmp_path):
    data = contents.of(fake_runs.write(tmp_path))
    assert data["finished"] and data["alarms"] == []
    assert [e["name"] for e in data["evaluations"]] == ["base", "stage1", "stage2"]
    assert [e["step"] for e in data["evaluations"]] == [20, 80, 120]
    assert [s["before"] for s in data["stages"]] == [0, 20, 80]
    assert data["stages"][1]["metrics"]["kl/attempt2"][-1] == pytest.approx(1.2)
    assert "kl/attempt2" not in data["stages"][0]["metrics"]
    json.dumps(data, allow_nan=False)


def test_a_running_one_shows_what_there_is(tmp_path):
    data = contents.of(fake_runs.write(tmp_path, stages=("base",)))
    assert not data["finished"]
    assert [s["step"][-1:] for s in data["stages"]] == [[20], [], []]
    jsonfiles.write(tmp_path / "new" / "config.json", data["config"])
    assert contents.of(tmp_path / "new")["evaluations"] == []


def test_evaluations_within_a_stage_stand_where_they_were_made(tmp_path):
    fake_runs.write(tmp_path)
    for name in ("stage1-50", "stage1-9", "latest", "other-3"):
        fake_runs.evaluation(tmp_path, name, fake_runs.made_up("base", 5))
    data = contents.of(tmp_path)
    assert [(e["name"], e["step"]) for e in data["evaluations"]] == [
        ("base", 20), ("stage1-9", 29), ("stage1-50", 70), ("stage1", 80), ("stage2", 120),
    ]  # fmt: skip
    shown = [e["name"] for e in data["transcripts"]["evaluations"]]
    assert shown == ["base", "stage1", "stage2", "latest"]
    assert data["latest"][""]["n"] == 5
    base = fake_runs.read_json(tmp_path / "evaluations" / "base.json")
    jsonfiles.write(tmp_path / "evaluations" / "latest.json", base)  # made before any training
    assert contents.of(tmp_path)["latest"] == {}


def test_further_test_sets_have_their_own_evaluations(tmp_path):
    fake_runs.write(tmp_path)
    config = fake_runs.read_json(tmp_path / "config.json")
    config["settings"]["problems"] = {"tests": {"hard": {}, "empty": {}}}
    jsonfiles.write(tmp_path / "config.json", config)
    for name in ("base.hard", "stage1-9.hard", "stage1.hard", "latest.hard", "stage1.other"):
        fake_runs.evaluation(tmp_path, name, fake_runs.made_up("base", 5))
    data = contents.of(tmp_path)
    assert list(data["further_tests"]) == ["hard"]
    assert [e["name"] for e in data["further_tests"]["hard"]] == ["base", "stage1-9", "stage1"]
    assert [e["name"] for e in data["evaluations"]] == ["base", "stage1", "stage2"]


def test_time_is_told_by_part_and_what_is_left_is_other(tmp_path):
    stages = contents.of(fake_runs.write(tmp_path))["stages"]
    beside = {"compile": 0.0, "evaluation": 0.0, "save": 0.0}
    assert stages[0]["seconds"] == pytest.approx(
        {"rollout": 0.0, "grade": 0.0, "update": 8.0, **beside, "other": 12.0}
    )
    assert stages[1]["seconds"] == pytest.approx(
        {"rollout": 12.0, "grade": 6.0, "update": 24.0, **beside, "other": 18.0}
    )


def test_time_beside_the_steps_is_told_where_it_was_measured(tmp_path):
    folder = fake_runs.write(tmp_path)
    rows = read_metrics(folder)
    rows[0] |= {"sec/compile": 3.0, "sec/evaluation": 5.0, "sec/save": 0.0}
    rows[5] |= {"sec/compile": 0.0, "sec/evaluation": 0.0, "sec/save": 1.5}
    jsonfiles.write_lines(folder / "metrics.jsonl", rows)
    seconds = contents.of(folder)["stages"][0]["seconds"]
    assert seconds["update"] == pytest.approx(8.0)
    assert [seconds[part] for part in ("compile", "evaluation", "save")] == [3.0, 5.0, 1.5]
    assert seconds["other"] == pytest.approx(12.0 - 9.5)


def test_long_curves_are_means_of_neighbouring_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "POINTS", 30)
    stage = contents.of(fake_runs.write(tmp_path))["stages"][1]
    assert stage["per_point"] == 2
    assert stage["step"][:2] == [2, 4]
    assert stage["metrics"]["kl/attempt1"][:2] == pytest.approx([0.015, 0.035])


def test_of_a_long_stage_few_points_and_rows_are_held():
    """They were all read into memory at each page, which took more with every step."""
    count = 10_001
    stage = contents.StageMetrics()
    for n in range(1, count + 1):
        stage.add({"stage": "stage1", "step": n, "loss": float(n), "changed": n, "sec/update": 1.0})
        assert len(stage.rows) <= 210
    curves = stage.curves()
    size, steps, losses = curves["per_point"], curves["step"], curves["metrics"]["loss"]
    assert size == 64 and contents.POINTS / 2 < len(steps) == len(losses) <= contents.POINTS
    assert steps == [*range(size, count, size), count]
    firsts = [1, *(step + 1 for step in steps[:-1])]
    expected = [(a + b) / 2 for a, b in zip(firsts, steps, strict=True)]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert stage.seconds["update"] == count


def test_a_reason_that_a_step_does_not_name_has_the_share_0_there(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "POINTS", 30)
    rows = fake_runs.steps_of(("base", "stage1"))
    rows[21]["reason/timeout/attempt1"] = 0.5
    fake_runs.write(tmp_path)
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", rows)
    base, stage1, _ = contents.of(tmp_path)["stages"]
    assert stage1["metrics"]["reason/timeout/attempt1"][:2] == [0.25, 0.0]
    assert "reason/timeout/attempt1" not in base["metrics"]


def test_a_metric_that_is_null_is_a_gap(tmp_path):
    fake_runs.write(tmp_path)
    rows = fake_runs.steps_of(("base",))
    rows[3]["loss"] = None
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", rows)
    assert contents.of(tmp_path)["stages"][0]["metrics"]["loss"][3] is None


def test_transcripts_share_problems_and_keep_to_their_budget(tmp_path):
    fake_runs.write(tmp_path, problems=30)
    whole = contents.of(tmp_path)["transcripts"]
    assert len(whole["problems"]) == 30
    assert [len(e["rows"]) for e in whole["evaluations"]] == [30, 30, 30]
    index, _edit, first, second = whole["evaluations"][2]["rows"][7]
    assert whole["problems"][index][0] == "fake/test/7"
    assert first[2] in ("equal", "unequal") and second[4] is False
    part = contents.of(tmp_path, transcript_characters=15_000)["transcripts"]
    assert [e["n"] for e in part["evaluations"]] == [30, 30, 30]
    assert all(0 < len(e["rows"]) < 30 for e in part["evaluations"])


def test_a_shading_is_taken_along_with_or_without_a_base(tmp_path):
    rows = [fake_runs.transcript(i, ("so", False), ("no", True)) for i in range(3)]
    fake_runs.shade(rows[0])
    fake_runs.shade(rows[1], base=False)
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    first, second, third = contents.of(tmp_path)["transcripts"]["evaluations"][0]["rows"]
    assert first[2][7] == [[1, 2, 2], [0.0, -0.6, -1.2], [0.0, -1.2, -2.4]]
    assert second[3][7] == [[1, 2, 2], [0.0, -0.6, -1.2], None]
    assert len(third[2]) == 7


def test_right_is_what_was_solved_whatever_the_reward(tmp_path):
    rows = [fake_runs.transcript(i, ("so", False), ("no", True)) for i in range(2)]
    rows[0]["attempts"][0]["reward"], rows[0]["attempts"][1]["reward"] = 0.7, -0.5
    for attempt in rows[1]["attempts"]:
        del attempt["solved"]  # of a run before `solved` was written
    fake_runs.write(tmp_path, transcripts={"stage2": rows[:1]})
    jsonfiles.write_lines(tmp_path / "transcripts" / "stage2.jsonl", rows)
    shown = contents.of(tmp_path)["transcripts"]["evaluations"][-1]["rows"]
    assert [[a[1] for a in row[2:]] for row in shown] == [[0.7, -0.5], [0.0, 1.0]]
    assert [[a[5] for a in row[2:]] for row in shown] == [[False, True], [False, True]]


def test_the_curve_of_right_answers_is_that_of_solved_or_of_an_older_runs_rewards(tmp_path):
    fake_runs.write(tmp_path)
    rows = fake_runs.steps_of(tuple(fake_runs.STAGES))
    for row in rows:
        if row["stage"] == "stage1":
            row |= {"reward/attempt1": -0.4, "solved/attempt1": 0.25}
        for attempt in (1, 2) if row["stage"] == "stage2" else ():
            del row[f"solved/attempt{attempt}"]
    rows[0] |= {"reward/attempt1": 1.0}  # of the documents of SFT
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", rows)
    base, first, second = (stage["metrics"] for stage in contents.of(tmp_path)["stages"])
    assert set(first["solved/attempt1"]) == {0.25} and set(first["reward/attempt1"]) == {-0.4}
    assert set(second["solved/attempt2"]) == {0.6}
    assert "solved/attempt1" not in base


def test_alarms_name_their_stage(tmp_path):
    fake_runs.write(tmp_path)
    rows = [
        row | ({"changed": 0.0} if row["stage"] == "stage2" else {})
        for row in fake_runs.steps_of(tuple(fake_runs.STAGES))
    ]
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", rows)
    (alarm,) = contents.of(tmp_path)["alarms"]
    assert alarm["stage"] == "stage2" and "repeat the first" in alarm["what"]


def test_a_base_model_that_answers_nothing_is_an_alarm_until_the_next_evaluation(tmp_path):
    rows = [fake_runs.transcript(i, ("hm", False), ("hm", False)) for i in range(4)]
    for row in rows:
        for attempt in row["attempts"]:
            attempt["reason"] = "no_answer"
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    first, second = contents.of(tmp_path)["alarms"]
    assert first["stage"] == "base" and "attempt 1 of the base model has no read" in first["what"]
    assert "attempt 2" in second["what"] and "100.0%" in second["what"]
    fake_runs.evaluation(tmp_path, "stage1", fake_runs.made_up("stage1", 4))
    assert contents.of(tmp_path)["alarms"] == []


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("config.json", "{", r"config\.json cannot be read"),
        ("evaluations/base.json", "[]", r"base\.json is not an evaluation"),
        ("transcripts/base.jsonl", "{\n", r"base\.jsonl has a line that is not JSON"),
    ],
)
def test_a_file_that_no_run_wrote_is_named(tmp_path, path, text, said):
    fake_runs.write(tmp_path)
    (tmp_path / path).write_text(text)
    with pytest.raises(InputError, match=said):
        contents.of(tmp_path)
