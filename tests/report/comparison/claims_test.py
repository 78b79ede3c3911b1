"""Statements are what the numbers say, seed by seed."""

import pytest

from score_jax.report.comparison import claims, finished
from tests.report.comparison import fake_results
from tests.report.comparison.fake_results import rewards


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        ours = fake_results.run(folder / f"score-{seed}", "score", seed, rewards(0.5, 0.9))
        fake_results.study(ours, above=0.1 if seed == 1 else -0.1)
        # Multi-turn RL copies in one seed, and corrects as well as SCoRe in the other.
        second = 0.5 if seed == 1 else 0.9
        fake_results.run(folder / f"m-{seed}", "multi_turn_rl", seed, rewards(0.5, second))
        fake_results.run(folder / f"n-{seed}", "no_shaping", seed, rewards(0.5, 0.905))
        fake_results.run(folder / f"o-{seed}", "offline_only", seed, rewards(0.3, 0.9))
    return {claim.text: claim for claim in claims.of(finished.read([folder]))}


@pytest.mark.parametrize(
    ("beginning", "verdict", "holds"),
    [
        ("The base model's second attempt is worse", "holds", 2),
        ("SCoRe's second attempt is better", "holds", 2),
        ("Multi-turn RL collapses to copying", "mixed", 1),
        ("SCoRe's Acc@t2 is above that of multi-turn RL", "mixed", 1),
        ("SCoRe's Acc@t2 is above that of SCoRe without reward shaping", "does not hold", 0),
        ("SCoRe's Δ is above that of offline first attempts", "does not hold", 0),
        ("At 32 solutions", "mixed", 1),
    ],
)
def test_a_claim_is_counted_in_seeds(found, beginning, verdict, holds):
    (claim,) = [claim for text, claim in found.items() if text.startswith(beginning)]
    assert (claim.verdict, claim.holds, claim.seeds) == (verdict, holds, 2)


def test_what_is_clearly_the_other_way_round_is_said(found):
    claim = found["SCoRe's Δ is above that of offline first attempts alone in Stage II"]
    assert claim.figures == "difference by seed -20.0 -20.0; below in 2"


def test_what_was_not_run_is_not_claimed(found):
    assert not any("Pair-SFT" in text for text in found)
