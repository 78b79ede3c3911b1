"""Steps that are not finite: the run stops or skips them, and what was saved is replayed."""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from score_jax import loop
from score_jax.batches.episodes import Episodes
from score_jax.modes import replay
from score_jax.problem import InputError
from score_jax.workdir import diagnosis
from tests.loop_test import metrics_of
from tests.recipes_test import no_report, tiny, with_stages  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def nan_rewards(monkeypatch):
    """The rewards of the given steps of Stage I are not finite."""
    steps: list[int] = []
    make = Episodes._batch

    def batch(self, dispatched, *found):
        made = make(self, dispatched, *found)
        bad = self._stage.name == "stage1" and dispatched.number in steps
        return made.replace(reward=made.reward * jnp.nan) if bad else made

    monkeypatch.setattr(Episodes, "_batch", batch)
    return steps


def with_nonfinite(settings, how: str):
    optimizer = dataclasses.replace(settings.optimizer, nonfinite=how)
    return dataclasses.replace(settings, optimizer=optimizer)


def test_a_step_that_is_not_finite_stops_the_run_is_replayed_and_skipped_on_demand(
    tmp_path, nan_rewards, capsys
):
    nan_rewards.append(2)
    settings = tiny("score")
    with pytest.raises(InputError, match=r"step 2 of stage1: reward/attempt1 is nan") as caught:
        loop.train(settings, str(tmp_path))
    file = tmp_path / "diagnosis" / "stage1-2.json"
    assert str(file) in str(caught.value) and "--mode=replay" in str(caught.value)
    assert [row["step"] for row in metrics_of(tmp_path) if row["stage"] == "stage1"] == [1]
    facts = json.loads(file.read_text())
    assert (facts["stage"], facts["step"], facts["metrics"]["loss"]) == ("stage1", 2, "nan")
    assert facts["norms"] and all(norm > 0 for norm in facts["norms"].values())
    assert len(facts["key"]) == 2 and facts["settings"]["seed"] == 0
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
        assert "batch/tokens" in arrays.files and np.isnan(arrays["batch/reward"]).all()

    capsys.readouterr()
    found = replay.replay(settings, file, None)
    said = capsys.readouterr().out
    assert math.isnan(found["loss"]) and math.isnan(found["grad_norm"])
    kept = facts["metrics"]
    assert found["entropy/attempt1"] == pytest.approx(kept["entropy/attempt1"], rel=1e-4)
    assert "reward not finite in 16 rows" in said and "gradients not finite" in said
    with pytest.raises(InputError, match="is not in this recipe"):
        replay.replay(dataclasses.replace(settings, recipe=("base",)), file, None)

    assert loop.train(with_nonfinite(settings, "skip"), str(tmp_path)) == loop.DONE
    rows = [row for row in metrics_of(tmp_path) if row["stage"] == "stage1"]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["loss"] is None and rows[1]["skipped"] == 1 and "skipped" not in rows[0]
    assert "SKIPPED stage1, step 2: reward/attempt1 is nan" in capsys.readouterr().out


def test_a_run_that_skips_every_step_stops(tmp_path, nan_rewards):
    nan_rewards += range(1, 20)
    settings = with_stages(with_nonfinite(tiny("score"), "skip"), steps=12)
    with pytest.raises(InputError, match=r"step 10 of stage1: .* as 10 steps in a row were"):
        loop.train(settings, str(tmp_path))


def test_log_probs_of_the_sampler_that_are_not_finite_stop_the_run(tmp_path, monkeypatch):
    check = loop.batches.Episodes._check

    def broken(self, own, dispatched):
        rows = own.rows
        logp = np.where(rows.attempt > 0, np.nan, rows.logp)
        check(self, dataclasses.replace(own, rows=rows.replace(logp=logp)), dispatched)

    monkeypatch.setattr(Episodes, "_check", broken)
    with pytest.raises(InputError, match=r"step 1 of stage1: .* log-prob that is not finite"):
        loop.train(tiny("score"), str(tmp_path))
    assert (tmp_path / "diagnosis" / "stage1-1.npz").exists()


def test_the_first_bad_number_is_the_cause_and_not_what_follows_from_it():
    bad, fine = float("nan"), 1.0
    metrics = {"loss": bad, "grad_norm": bad, "kl/attempt1": bad, "reward/attempt1": fine}
    assert diagnosis.first_bad(metrics) == "kl/attempt1"
    assert diagnosis.first_bad(metrics | {"logp_gap": float("inf")}) == "logp_gap"
    assert diagnosis.first_bad({"loss": fine, "grad_norm": fine}) == ""
    assert diagnosis.first_bad({"grad_norm": bad, "loss": bad}) == "loss"
    assert diagnosis.first_bad({"loss": fine, "param_norm/mlp": bad}) == "param_norm/mlp"
    assert diagnosis.first_bad({"param_norm/mlp": bad, "update_norm/mlp": bad}) == "update_norm/mlp"
    given = {f"{name}/attempt1": bad for name in ("reward", "kl", "length")} | {"loss": fine}
    assert diagnosis.first_bad(given) == ""
    assert diagnosis.first_bad(given | {"loss": bad}) == "loss"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04N."])
def test_a_damaged_file_is_refused_and_nothing_of_it_is_run(content, tmp_path):
    facts = {"settings": {}, "stage": "stage1", "step": 1, "metrics": {}}
    (tmp_path / "a.json").write_text(json.dumps(facts))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not a saved step"):
        diagnosis.read(tmp_path / "a.json")
