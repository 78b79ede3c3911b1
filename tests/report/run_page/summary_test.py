import json

import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.evaluation import metrics
from score_jax.problem import InputError
from score_jax.report.run_page import summary


def _write_evaluation(workdir, stage, reward):
    reward_NA = np.asarray(reward)
    found = metrics.evaluation_metrics(
        reward_NA, np.zeros(len(reward_NA), bool), np.zeros(reward_NA.shape, bool)
    )
    jsonfiles.write(workdir / "evaluations" / f"{stage}.json", found)
    return found


def test_stages_come_in_the_order_of_the_recipe(tmp_path):
    last = _write_evaluation(tmp_path, "stage1", [[0, 1], [1, 1]])
    first = _write_evaluation(tmp_path, "base", [[0, 0], [1, 1]])
    _write_evaluation(tmp_path, "aside", [[0, 0]])
    found = summary.write(tmp_path, ["stage1", "stage2"], 12.5, {"jax": "0.10.2"})
    assert list(found["stages"]) == ["base", "stage1"]  # stage2 was not run, aside is not of it
    assert found == {
        "stages": {"base": first, "stage1": last},
        "wall_sec": 12.5,
        "versions": {"jax": "0.10.2"},
    }
    on_disk = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert on_disk == found
    assert list(on_disk["stages"]) == ["base", "stage1"]


def test_the_table_shows_each_share_over_its_interval(tmp_path):
    _write_evaluation(tmp_path, "base", [[1, 0]] + [[0, 0]] * 9)
    _write_evaluation(tmp_path, "stage1", [[0, 1]] * 4 + [[1, 1]] * 6)
    lines = summary.table(summary.write(tmp_path, ["base", "stage1"], 1.0, {})).splitlines()
    assert lines[0].split() == ["stage", "Acc@t1", "Acc@t2", "Δ", "i→c", "c→i", "changed", "n"]
    assert lines[2].split() == ["base", "0.100", "0.000", "-0.100", "0.000", "0.100", "0.000", "10"]
    assert lines[4].split() == [
        "stage1", "0.600", "1.000", "+0.400", "0.400", "0.000", "0.000", "10",
    ]  # fmt: skip
    assert lines[5].split("  ")[-1] == "[0.000, 0.278]"  # of `changed`, 0 of 10
    assert "[0.313, 0.832]" in lines[5]  # of 6 of 10
    assert len(lines[0]) == len(lines[2]) == len(lines[4])


def test_rewards_that_are_all_0_or_1_stand_beside_others(tmp_path):
    _write_evaluation(tmp_path, "base", [[0, 0], [0, 1]])
    partly = np.array([[0.25, 0.5], [0.5, 1.0]])
    found = metrics.evaluation_metrics(
        partly >= 1, np.ones(2, bool), np.zeros((2, 2), bool), reward_NA=partly
    )
    jsonfiles.write(tmp_path / "evaluations" / "stage1.json", found)
    lines = summary.table(summary.write(tmp_path, ["stage1"], 1.0, {})).splitlines()
    assert lines[0].split()[3:5] == ["reward@t1", "reward@t2"]
    assert lines[2].split()[3:5] == ["0.000", "0.500"] and lines[4].split()[3:5] == [
        "0.375",
        "0.750",
    ]


def test_the_table_splits_what_was_repaired_into_format_and_answer(tmp_path):
    solved_NA = np.array([[0, 1]] * 4 + [[0, 0]] * 6)
    reasons = [["no_answer", "equal"]] * 3 + [["unequal", "equal"]] + [["unequal"] * 2] * 6
    found = metrics.evaluation_metrics(
        solved_NA, np.ones(10, bool), np.zeros((10, 2), bool), reasons=reasons
    )
    jsonfiles.write(tmp_path / "evaluations" / "base.json", found)
    text = summary.table(summary.write(tmp_path, [], 1.0, {}))
    assert text.splitlines()[-1] == (
        "base: i→c = 0.300 [0.108, 0.603] format repaired + 0.100 [0.018, 0.404] answer repaired"
    )


def test_the_table_says_that_programs_ran_without_a_sandbox(tmp_path):
    found = _write_evaluation(tmp_path, "base", [[1, 0]])
    boxed = summary.write(tmp_path, [], 1.0, {})
    assert "sandbox" not in summary.table(boxed)
    jsonfiles.write(tmp_path / "evaluations" / "base.json", {**found, "sandbox": "none"})
    assert "sandbox: none" in summary.table(summary.write(tmp_path, [], 1.0, {}))


def test_the_table_of_one_attempt_has_no_difference(tmp_path):
    jsonfiles.write(
        tmp_path / "evaluations" / "base.json",
        metrics.evaluation_metrics(np.array([[1], [0]]), None, np.zeros((2, 1), bool)),
    )
    text = summary.table(summary.write(tmp_path, [], 1.0, {}))
    assert text.splitlines()[0].split() == ["stage", "Acc@t1", "n"]
    assert "Δ" not in text


def test_the_table_of_three_attempts_adds_the_last(tmp_path):
    _write_evaluation(tmp_path, "base", [[0, 0, 1], [1, 1, 1]])
    head = summary.table(summary.write(tmp_path, [], 1.0, {})).splitlines()[0].split()
    assert head[1:6] == ["Acc@t1", "Acc@t2", "Acc@t3", "Δ", "Δ@t3"]


def test_no_evaluations_make_no_table(tmp_path):
    assert summary.table(summary.write(tmp_path, [], 1.0, {})) == "no evaluations were run"


def test_a_broken_evaluation_is_named_with_the_fix(tmp_path):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "base.json").write_text('{"n": ')
    with pytest.raises(InputError, match=r"base\.json is not JSON.*run the same command"):
        summary.write(tmp_path, [], 1.0, {})
    assert not (tmp_path / "report").exists()
