"""Alarms of evaluations: of the base model alone, and of a stage compared with the base model."""

from collections.abc import Iterator, Mapping
from typing import Any

from score_jax.workdir.alarms.alarm import Alarm

MOSTLY = 0.5  # share of the base model's attempts that are truncated or unreadable


def of_base(base: Mapping[str, Any]) -> list[Alarm]:
    """Alarms of a base model most of whose attempts are truncated or have no readable answer."""
    keys = (key for key in base if key.startswith("accuracy_attempt"))
    return [alarm for key in keys for alarm in _of_base(base, key.removeprefix("accuracy_attempt"))]


def of_evaluations(
    base: Mapping[str, Any], after: Mapping[str, Any], *, ended: bool = True
) -> list[Alarm]:
    """Alarms of an RL stage's evaluation, compared with the base model's; both by metrics.py.

    Intervals of the two that do not meet: what lies within sampling error raises nothing.

    Args:
      ended: whether the stage is over. Before that second attempts may still be worse than first
        ones, if they are no worse than the base model's.
    """
    found = []
    if after["interval"]["accuracy_attempt1"][1] < _low(base, "accuracy_attempt1", after):
        found.append(
            Alarm(
                "first_attempt_lost",
                f"accuracy of attempt 1 is {after['accuracy_attempt1']:.1%}, below the base "
                f"model's {base['accuracy_attempt1']:.1%}",
                "Training made first attempts worse. Raise kl_attempt1, above all in Stage I.",
            )
        )
    if "delta" in after:
        low = 0.0 if ended or "delta" not in base else min(0.0, _low(base, "delta", after))
        if after["interval"]["delta"][1] < low:
            found.append(
                Alarm(
                    "negative_delta",
                    f"second attempts are worse than first attempts (Δ {after['delta']:+.1%})",
                    "Revisions break more answers than they fix. Train Stage I longer, or raise "
                    "the bonus.",
                )
            )
    return found


def _low(base: Mapping[str, Any], name: str, after: Mapping[str, Any]) -> float:
    """The base model's lower bound, had it been evaluated on as many problems as `after` was.

    An evaluation within a stage may have an eighth of them, of which some are harder than all.
    """
    share, low = base[name], base["interval"][name][0]
    return share - (share - low) * max(1.0, base.get("n", 1) / after.get("n", 1)) ** 0.5


def _of_base(base: Mapping[str, Any], attempt: str) -> Iterator[Alarm]:
    cut, unreadable, right, leniently = (
        base.get(f"{name}_attempt{attempt}", 0.0)
        for name in ("truncated", "unreadable", "accuracy", "lenient")
    )
    if cut + unreadable < MOSTLY:
        return
    leniently = max(leniently, right)
    known = f"{right:.1%} of the answers are right."
    if leniently > right:  # a reward function of one's own has no lenient form
        known = f"Graded leniently {leniently:.1%} of the answers are right, strictly {right:.1%}."
    # Both alarms only where neither cause is small beside the other.
    if 2 * cut >= unreadable:
        yield Alarm(
            f"base_truncated_attempt{attempt}",
            f"attempt {attempt} of the base model is truncated in {cut:.1%} of the problems",
            f"{known} Truncated attempts are not solved, so RL would learn to be short before it "
            "learns the task. Raise rollout.max_attempt_tokens. If the transcripts show text after "
            "the answer, the model does not write its end token: name a text that ends an attempt "
            "(problems.stop_before, problems.stop_after), or use another model.template or prompt.",
        )
    if 2 * unreadable >= cut:
        yield Alarm(
            f"base_unreadable_attempt{attempt}",
            f"attempt {attempt} of the base model has no readable answer in {unreadable:.1%} of "
            "the problems",
            f"{known} RL would learn the form of an answer before it learns the task. Use another "
            "problems.prompt or model.template, say the form in problems.prompt_text, or begin "
            "with an SFT stage. The transcripts show what the model writes.",
        )
