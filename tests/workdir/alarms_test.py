"""Alarms: none on a healthy stage, the right one for each failure."""

import json
from pathlib import Path

import pytest

from score_jax.workdir import alarms

RECORDED = Path(__file__).parents[1] / "recorded" / "quickstart_metrics.jsonl"


def rows(count=40, **changes):
    """Steps of a healthy stage, but for the changes."""
    row = {"changed": 0.4, "logp_gap": 1e-6}
    for attempt in (1, 2):
        row |= {
            f"reward/attempt{attempt}": 0.5,
            f"solved/attempt{attempt}": 0.5,
            f"truncated/attempt{attempt}": 0.0,
            f"kl/attempt{attempt}": 6.0,
            f"length/attempt{attempt}": 6.0,
            f"entropy/attempt{attempt}": 0.1,
            f"mixed/attempt{attempt}": 0.4,
            f"advantage/attempt{attempt}": 0.3,
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


def both(attempt, share):
    """Rewards of 0 and 1: their mean is the share that is solved."""
    return {f"reward/{attempt}": share, f"solved/{attempt}": share}


FAILURES = [
    ({"changed": 0.01}, "copying", "second attempts repeat the first in 99.0%"),
    (both("attempt1", 0.2), "first_attempt_drift", "attempt 1 fell to 20.0%, from 50.0%"),
    (both("attempt2", 0.001), "hopeless_attempt2", "accuracy of attempt 2 is only 0.1%"),
    ({"truncated/attempt1": 0.5}, "truncated_attempt1", "attempt 1 is truncated in 50.0%"),
    ({"kl/attempt2": 30.0}, "kl_attempt2", "attempt 2 to the reference is 5.00 nats"),
    ({"length/attempt2": 10.0}, "length_attempt2", "attempt 2 has 10 tokens, up from 6"),
    ({"mixed/attempt1": 0.0}, "unmixed_attempt1", "only 0.0% of the problems"),
    ({"entropy/attempt2": 1e-5}, "entropy_attempt2", "attempt 2 fell to 1e-05 nats per token"),
    ({"advantage/attempt2": 0.0}, "no_gradient_attempt2", "attempt 2 has no gradient"),
    ({"logp_gap": 0.3}, "logp_gap", "differ by 0.3 nats"),
]


@pytest.mark.parametrize(("failure", "name", "said"), FAILURES)
def test_each_failure_has_one_alarm_within_5_steps_that_names_it(failure, name, said):
    (alarm,) = alarms.of_steps(rows() + rows(5, **failure))
    assert alarm.name == name and said in alarm.what
    assert alarm.advice.endswith(".")


@pytest.mark.parametrize(("failure", "name", "said"), FAILURES)
def test_an_alarm_is_cleared_when_its_cause_is_gone(failure, name, said):
    del name, said
    assert alarms.of_steps(rows() + rows(20, **failure) + rows(5)) == []


def test_each_failure_is_found_in_the_recorded_quickstart_and_nothing_else_is():
    stages = recorded()
    assert [len(steps) for steps in stages.values()] == [300, 100]
    for steps in stages.values():
        for n in range(len(steps) + 1):
            assert alarms.of_steps(steps[:n]) == []
        for failure, name, _ in FAILURES:
            half = len(steps) // 2
            # What is solved has neither mixed problems, entropy nor gradient, and rightly so.
            unsolved = both("attempt1", 0.5) | both("attempt2", 0.5)
            broken = [row | unsolved | failure for row in steps[half : half + 5]]
            found = [alarm.name for alarm in alarms.of_steps(steps[:half] + broken)]
            assert name in found, (name, found)


def recorded():
    """RL stages of a quickstart of seed 0, as far as alarms read them."""
    stages = {}
    for line in RECORDED.read_text().splitlines():
        row = json.loads(line)
        stages.setdefault(row["stage"], []).append(row)
    return stages


def test_what_is_solved_has_nothing_left_to_compare_and_that_is_no_failure():
    solved = {**both("attempt2", 0.99), "mixed/attempt2": 0.0, "entropy/attempt2": 0.0}
    assert alarms.of_steps(rows() + rows(5, **solved)) == []


def test_accuracies_are_of_what_is_solved_and_rewards_of_any_size_are_no_failure():
    odd = {"reward/attempt1": -3.0, "reward/attempt2": 40.0}
    assert alarms.of_steps(rows() + rows(5, **odd)) == []
    (alarm,) = alarms.of_steps(rows(**odd) + rows(5, **odd, **{"solved/attempt1": 0.1}))
    assert alarm.name == "first_attempt_drift" and "fell to 10.0%, from 50.0%" in alarm.what


def test_rewards_teach_where_nothing_is_solved_until_they_are_all_alike():
    graded = {"reward/attempt1": 0.4, "solved/attempt1": 0.0, "solved/attempt2": 0.0}
    graded |= {"reward/attempt2": 0.6}
    assert alarms.of_steps(rows(**graded)) == []
    alike = alarms.of_steps(rows(**graded) + rows(5, **graded, **{"mixed/attempt2": 0.0}))
    assert [alarm.name for alarm in alike] == ["unmixed_attempt2"]


def test_rows_of_older_runs_have_rewards_alone():
    older = [{k: v for k, v in row.items() if "solved" not in k} for row in rows()]
    assert alarms.of_steps(older) == []
    found = alarms.of_steps(older + [row | {"reward/attempt1": 0.2} for row in older[:5]])
    assert [alarm.name for alarm in found] == ["first_attempt_drift"]


def test_the_first_steps_raise_no_alarm():
    assert alarms.of_steps(rows(alarms.BEGIN - 1, changed=0.0)) == []


def test_rounding_of_bfloat16_is_no_alarm():
    assert alarms.of_steps(rows(logp_gap=0.3), "bfloat16") == []


def test_runs_of_one_attempt_and_null_metrics_are_read():
    single = [{"reward/attempt1": 0.5, "changed": 0.0, "kl/attempt1": None} for _ in range(20)]
    assert alarms.of_steps(single) == []


def base(cut=0.0, unreadable=0.0, attempts=2):
    """An evaluation of a base model whose first attempts fail for their form."""
    found = {}
    for attempt in range(1, attempts + 1):
        first = attempt == 1
        found |= {
            f"accuracy_attempt{attempt}": 0.2,
            f"lenient_attempt{attempt}": 0.3,
            f"truncated_attempt{attempt}": cut if first else 0.1,
            f"unreadable_attempt{attempt}": unreadable if first else 0.1,
        }
    return found


def test_a_base_model_that_mostly_fails_for_its_form_is_found_before_training():
    assert alarms.of_base(base()) == alarms.of_base(base(0.2, 0.2)) == []
    (cut,) = alarms.of_base(base(cut=0.9))
    assert cut.name == "base_truncated_attempt1"
    assert cut.what == "attempt 1 of the base model is truncated in 90.0% of the problems"
    assert "Graded leniently 30.0% of the answers are right, strictly 20.0%." in cut.advice
    assert "rollout.max_attempt_tokens" in cut.advice
    (unreadable,) = alarms.of_base(base(unreadable=0.6, attempts=1))
    assert unreadable.name == "base_unreadable_attempt1"
    assert "no readable answer in 60.0% of the problems" in unreadable.what
    assert "problems.prompt" in unreadable.advice
    both_kinds = [alarm.name for alarm in alarms.of_base(base(0.3, 0.3))]
    assert both_kinds == ["base_truncated_attempt1", "base_unreadable_attempt1"]
    older = {"accuracy_attempt1": 0.2, "truncated_attempt1": 0.9}
    assert [alarm.name for alarm in alarms.of_base(older)] == ["base_truncated_attempt1"]


def test_a_lost_first_attempt_and_a_negative_delta_are_found():
    lost, harmful = alarms.of_evaluations(evaluation(0.5, 0.0), evaluation(0.3, -0.1))
    assert "attempt 1 is 30.0%, below the base model's 50.0%" in lost.what
    assert "worse than first attempts (Δ -10.0%)" in harmful.what
