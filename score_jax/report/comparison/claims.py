"""Which of the paper's claims hold in a set of runs, computed from their files.

Each claim is tested in every seed separately. Two runs of a seed answered the same problems, so
their difference has a bootstrap interval over problems. The difference counts as "above" only if
the whole interval is above 0. A claim "holds" if it holds in all seeds, "does not hold" if it holds
in none, and is "mixed" otherwise.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from score_jax.evaluation.sampled import bootstrap_interval
from score_jax.report.comparison import finished, tables
from score_jax.report.comparison.finished import Finished

Metrics = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Finished]]  # by name and seed
COPIES = 0.05  # if a smaller share of second attempts differs, the model is said to copy


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper, and in how many seeds it holds."""

    text: str
    holds: int
    seeds: int
    figures: str  # the numbers that decide it

    @property
    def verdict(self) -> str:
        return {self.seeds: "holds", 0: "does not hold"}.get(self.holds, "mixed")


def of(runs: Sequence[Finished]) -> list[Claim]:
    """All claims that these runs can test."""
    named: dict[str, dict[int, Finished]] = {}
    for run in runs:
        named.setdefault(run.name, {})[run.seed] = run
    made = [
        _own(named, "score", "base", _loses, "The base model's second attempt is worse (Δ < 0)"),
        _own(named, "score", "", _gains, "SCoRe's second attempt is better than its first (Δ > 0)"),
        _own(named, "single_turn_rl", "", _loses, "Single-turn RL leaves Δ negative"),
        _own(
            named,
            "multi_turn_rl",
            "",
            _copies,
            f"Multi-turn RL collapses to copying (under {COPIES:.0%} of second attempts differ)",
        ),
        _own(named, "pair_sft_plus", "", _copies, "Pair-SFT on D+ copies"),
    ]
    for name, label in (
        ("star_plus", "STaR on D+"),
        ("pair_sft", "Pair-SFT on D"),
        ("multi_turn_rl", "multi-turn RL"),
        ("single_turn_rl", "single-turn RL"),
        ("no_stage1", "SCoRe without Stage I"),
        ("no_shaping", "SCoRe without reward shaping"),
        ("star_stage2", "STaR in place of REINFORCE in Stage II"),
        ("offline_only", "offline first attempts alone in Stage II"),
    ):
        made.append(_above(named, name, 1, f"SCoRe's Acc@t2 is above that of {label}"))
        made.append(_above(named, name, None, f"SCoRe's Δ is above that of {label}"))
    made.append(_scaling(named))
    return [claim for claim in made if claim]


def _gains(metrics: Metrics) -> bool:
    return metrics["interval"]["delta"][0] > 0


def _loses(metrics: Metrics) -> bool:
    return metrics["interval"]["delta"][1] < 0


def _copies(metrics: Metrics) -> bool:
    return metrics["changed"] < COPIES


def _own(
    named: Runs, name: str, stage: str, test: Callable[[Metrics], bool], text: str
) -> Claim | None:
    """A claim about the runs of one name, after a stage; empty: after the last one."""
    runs = list(named.get(name, {}).values())
    if not runs:
        return None
    metrics = [run.stages[stage] if stage else run.last for run in runs]
    delta, changed = (
        100 * statistics.fmean(m[key] for m in metrics) for key in ("delta", "changed")
    )
    figures = f"Δ {delta:+.1f}, changed {changed:.1f} %"
    return Claim(text, sum(map(test, metrics)), len(runs), figures)


def _above(named: Runs, other: str, attempt: int | None, text: str) -> Claim | None:
    """Whether SCoRe is above `other`; attempt as in finished.difference."""
    ours, theirs = named.get("score", {}), named.get(other, {})
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    values = [finished.difference(ours[seed], theirs[seed], attempt) for seed in seeds]
    holds = sum(bootstrap_interval(value_N)[0] > 0 for value_N in values)
    below = sum(bootstrap_interval(value_N)[1] < 0 for value_N in values)
    figures = " ".join(f"{100 * value_N.mean():+.1f}" for value_N in values)
    also = f"; below in {below}" if below else ""
    return Claim(text, holds, len(seeds), f"difference by seed {figures}{also}")


def _scaling(named: Runs) -> Claim | None:
    """K + K compared with 2K, at the paper's 32 solutions."""
    rows = []
    for run in named.get("score", {}).values():
        study = run.scaling()
        rows += [row for row in (study or {"budgets": []})["budgets"] if row["solutions"] == 32]
    if not rows:
        return None
    above = [row["sequential"]["above_parallel"] for row in rows]
    return Claim(
        "At 32 solutions a problem, 16 that are corrected once beat 32 in parallel (SCoRe)",
        sum(one["interval"][0] > 0 for one in above),
        len(rows),
        "difference by seed " + " ".join(f"{100 * one['difference']:+.1f}" for one in above),
    )


def markdown(claims: Sequence[Claim]) -> str:
    """A table with a row for each claim."""
    rows = [
        (claim.text, f"**{claim.verdict}**", f"{claim.holds} of {claim.seeds}", claim.figures)
        for claim in claims
    ]
    return tables.grid(("claim of the paper", "here", "seeds", "figures"), rows)
