"""Alarms: silent on a healthy stage, each one out on its own failure."""

import pytest

from score_jax import alarms


def rows(count=40, **changes):
    """Steps of a healthy stage, but for the changes."""
    row = {"changed": 0.4, "logp_gap": 1e-6}
    for attempt in (1, 2):
        row |= {
            f"reward/attempt{attempt}": 0.5,
            f"truncated/attempt{attempt}": 0.0,
            f"kl/attempt{attempt}": 6.0,
            f"length/attempt{attempt}": 6.0,
        }
    return [row | changes for _ in range(count)]


def evaluation(first, delta):
    return {
        "accuracy_attempt1": first,
        "delta": delta,
        "interval": {
            "accuracy_attempt1": [first - 0.02, first + 0.02],
            "delta": [delta - 0.02, delta + 0.02],
        },
    }


def test_a_healthy_stage_has_no_alarms():
    assert alarms.of_steps(rows()) == []
    assert alarms.of_evaluations(evaluation(0.3, -0.05), evaluation(0.31, 0.4)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"changed": 0.01}, "second attempts repeat the first in 99.0%"),
        ({"reward/attempt2": 0.001}, "attempt 2 is right in 0.1%"),
        ({"truncated/attempt1": 0.5}, "attempt 1 is cut off in 50.0%"),
        ({"kl/attempt2": 30.0}, "attempt 2 is 5.00 nats per token away"),
        ({"logp_gap": 0.3}, "differ by 0.3 nats"),
    ],
)
def test_each_failure_has_one_alarm_that_names_it(changes, said):
    (alarm,) = alarms.of_steps(rows(**changes))
    assert said in alarm.what
    assert alarm.advice.endswith(".")


def test_only_the_latest_steps_count():
    assert alarms.of_steps(rows(90, changed=0.0) + rows(10)) == []
    assert alarms.of_steps(rows(90) + rows(10, changed=0.0))


def test_a_few_steps_say_nothing_yet():
    assert alarms.of_steps(rows(alarms.MIN_STEPS - 1, changed=0.0)) == []


def test_rounding_of_bfloat16_is_no_alarm():
    assert alarms.of_steps(rows(logp_gap=0.3), "bfloat16") == []


def test_runs_of_one_attempt_and_null_metrics_are_read():
    single = [{"reward/attempt1": 0.5, "changed": 0.0, "kl/attempt1": None} for _ in range(20)]
    assert alarms.of_steps(single) == []


def test_a_lost_first_attempt_and_a_negative_delta_are_told():
    lost, harmful = alarms.of_evaluations(evaluation(0.5, 0.0), evaluation(0.3, -0.1))
    assert "first attempts are right in 30.0%" in lost.what
    assert "worse than first ones (Δ -10.0%)" in harmful.what
