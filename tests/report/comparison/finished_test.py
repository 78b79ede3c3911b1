"""Reading finished runs, and comparing two problem by problem."""

import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.report.comparison import finished
from tests.report.comparison import fake_results
from tests.report.comparison.fake_results import rewards


def test_runs_are_compared_problem_by_problem(tmp_path):
    fake_results.run(tmp_path / "a", "score", 1, rewards(0.5, 0.75))
    fake_results.run(tmp_path / "b", "star", 1, rewards(0.25, 0.25))
    a, b = finished.read([tmp_path])
    assert np.mean(finished.difference(a, b, 1)) == pytest.approx(0.5)
    assert np.mean(finished.difference(a, b, None)) == pytest.approx(0.25)
    assert len(finished.difference(a, b, 0)) == fake_results.N


def test_what_is_compared_is_solved_whatever_the_reward(tmp_path):
    for name, solved in (("a", True), ("b", False)):
        fake_results.run(tmp_path / name, name, 1, rewards(0.5, 0.75))
        attempts = [{"reward": -0.3, "solved": one, "tokens": 2} for one in (False, solved)]
        lines = [{"id": f"p{i}", "attempts": attempts} for i in range(10)]
        jsonfiles.write_lines(tmp_path / name / "transcripts" / "trained.jsonl", lines)
    a, b = finished.read([tmp_path])
    assert finished.difference(a, b, 1).tolist() == [1] * 10
    assert finished.difference(a, b, 0).tolist() == [0] * 10
    assert a.tokens() == 4.0


def test_runs_of_different_problems_are_not_compared(tmp_path):
    fake_results.run(tmp_path / "a", "score", 1, rewards(0.5, 0.75))
    fake_results.run(tmp_path / "b", "star", 1, rewards(0.25, 0.25)[:50])
    with pytest.raises(InputError, match="different problems"):
        finished.difference(*finished.read([tmp_path]), 1)


def test_a_run_that_is_not_finished_is_left_out_and_named(tmp_path, capsys):
    for name in ("a", "b", "c"):
        fake_results.run(tmp_path / name, "score", 1, rewards(0.5, 0.75))
    finished.read([tmp_path])
    assert not capsys.readouterr().err
    for name in ("a", "c"):
        (tmp_path / name / "report" / "summary.json").unlink()
    assert [run.folder.name for run in finished.read([tmp_path])] == ["b"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith(
        f"left out: {tmp_path / 'a'}, {tmp_path / 'c'}\n"
    )


def test_a_damaged_run_is_named(tmp_path):
    fake_results.run(tmp_path / "a", "score", 1, rewards(0.5, 0.75))
    (tmp_path / "a" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="a cannot be read as a finished run"):
        finished.read([tmp_path])
