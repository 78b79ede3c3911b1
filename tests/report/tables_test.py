"""Pooling of runs over seeds."""

import json

import pytest

from score_jax.problem import InputError
from score_jax.report import tables


def fake_run(folder, recipe, stages):
    (folder / "report").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {"recipe": recipe}}))
    (folder / "report" / "summary.json").write_text(json.dumps({"stages": stages}))


def metrics(first, second):
    return {
        "n": 100,
        "accuracy_attempt1": first,
        "accuracy_attempt2": second,
        "delta": second - first,
        "incorrect_to_correct": second - first,
        "correct_to_incorrect": 0.0,
        "changed": 0.5,
    }


def test_runs_of_one_recipe_are_pooled_with_mean_spread_and_range(tmp_path):
    fake_run(tmp_path / "a", ["base", "stage1"], {"stage1": metrics(0.4, 0.8)})
    fake_run(tmp_path / "b", ["base", "stage1"], {"stage1": metrics(0.5, 1.0)})
    fake_run(tmp_path / "c", ["base"], {"stage1": metrics(0.0, 0.0)})
    lines = tables.markdown(tables.pooled(sorted(tmp_path.iterdir()))).splitlines()
    assert len(lines) == 4
    pooled = lines[2]
    assert "| 2 | 100 | 45.0 ± 7.1 | 90.0 ± 14.1 | 45.0 ± 7.1 |" in pooled
    assert "+40.0 … +50.0" in pooled
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(InputError, match="not a finished run"):
        tables.pooled([tmp_path])
