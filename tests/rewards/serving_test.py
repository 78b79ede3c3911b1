"""What tells the code of a reward function from another; calls are tested in functions_test.py."""

import sys

from score_jax import grading
from score_jax.config.settings import RewardSettings
from score_jax.rewards import given, serving
from tests.loop_test import tiny_settings


def test_the_digest_is_that_of_the_functions_file_and_nothing_is_imported(tmp_path, monkeypatch):
    folder = tmp_path / "own_rewards_of_this_test"
    folder.mkdir()
    for name in ("__init__", "polite"):
        (folder / f"{name}.py").write_text("raise SystemExit")
    (tmp_path / "plain.py").write_text("one = 1")
    monkeypatch.syspath_prepend(tmp_path)
    named = [f"{folder.name}.polite:f", f"{folder.name}:f", f"{tmp_path}/plain.py:f"]
    before = list(map(serving.code_digest, named))
    assert all(before) and len(set(before)) == 2  # two files have the same text
    assert folder.name not in sys.modules
    (folder / "polite.py").write_text("raise SystemExit  # changed")
    (tmp_path / "plain.py").write_text("one = 2")
    after = list(map(serving.code_digest, named))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False]
    given_name = given.named(lambda problem, texts, gold: [1.0])
    for no_file in ("", "builtin", "absent.module:f", "absent.py:f", "sys:f", given_name):
        assert serving.code_digest(no_file) == "", no_file


def test_only_functions_of_the_runs_own_are_watched(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("")
    settings = tiny_settings(rewards=RewardSettings(function=f"{file}:f"))
    assert list(grading.reward_code(settings)) == [f"{file}:f"]
    assert grading.reward_code(tiny_settings()) == {}
