"""The benchmark grades everything right, and counts."""

from score_jax.bench import rewards
from tests.rewards.sandbox import sandboxes


def test_all_is_graded_right_and_rates_are_positive(monkeypatch):
    sandboxes.need_any()
    sandboxes.close()
    for name, count in (("PROGRAMS", 10), ("NUMBERS", 20), ("FORMULAS", 4)):
        monkeypatch.setattr(rewards, name, count)
    measured = rewards.measure(reps=2)
    rewards.close()
    for name in ("programs", "numbers", "formulas"):
        least, most = measured[f"{name}_spread"]
        assert 0 < least <= measured[f"{name}_per_sec"] <= most
        assert measured[f"{name}_right"] == 1.0
    assert measured["sandbox"] in sandboxes.KINDS
