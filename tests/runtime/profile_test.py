"""Profiles of steps: which steps are in the file, and what they are called."""

import gzip
import json

import jax
import numpy as np
import pytest

from score_jax.problem import InputError
from score_jax.runtime.clock import Clock
from score_jax.runtime.profile import Profile


def events(folder) -> list[dict]:
    (path,) = folder.rglob("*.trace.json.gz")
    return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def run(profile: Profile, stage: str, numbers, fails_at: int = 0) -> list[str]:
    """A loop as training's; what it said."""
    said: list[str] = []
    pending: list[jax.Array] = []
    clock = Clock()

    def say(text: str) -> None:
        said.append(text)
        assert fails_at or not pending  # what was profiled is waited for first

    for number in profile.steps(stage, numbers, wait=pending.clear, say=say):
        with clock.phase("update"):
            pending.append(jax.jit(lambda x: x @ x)(np.ones((8, 8))))
        if number == fails_at:
            raise OSError
    return said


def test_the_named_steps_and_their_phases_are_in_the_file_and_no_others(tmp_path):
    profile = Profile("stage1:3+2", tmp_path / "profile")
    assert not run(profile, "base", range(1, 9))
    assert not (tmp_path / "profile").exists()
    (said,) = run(profile, "stage1", range(1, 9))
    assert "profile of stage1, steps 3 to 4" in said and "https://ui.perfetto.dev" in said
    assert str(next(tmp_path.rglob("*.trace.json.gz"))) in said
    found = events(tmp_path)
    steps = [e for e in found if e.get("name") == "step"]
    assert sorted(int(e["args"]["step_num"]) for e in steps) == [3, 4]
    assert sum(e.get("name") == "update" for e in found) == 2


def test_a_profile_that_an_error_cuts_short_is_written_and_another_may_begin(tmp_path):
    with pytest.raises(OSError):
        run(Profile("stage1:1+3", tmp_path / "first"), "stage1", range(1, 9), fails_at=2)
    assert sum(e.get("name") == "update" for e in events(tmp_path / "first")) == 2
    (said,) = run(Profile("stage1:2", tmp_path / "second"), "stage1", range(1, 9))
    assert "step 2:" in said


def test_a_stage_that_resumes_behind_the_steps_says_that_there_is_no_profile(tmp_path):
    (said,) = run(Profile("stage1:3+2", tmp_path), "stage1", range(5, 9))
    assert "resumes at step 5" in said and "3 to 4" in said


def test_a_stage_may_have_any_number_of_steps(tmp_path):
    steps = Profile("", tmp_path).steps("stage1", range(1, 10**20), wait=print, say=print)
    assert next(steps) == 1


def test_a_text_of_another_form_is_refused(tmp_path):
    with pytest.raises(InputError, match="STAGE:STEP"):
        Profile("stage1", tmp_path)
