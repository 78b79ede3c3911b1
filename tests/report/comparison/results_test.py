"""RESULTS.md is made from runs alone, again and again the same."""

import pytest

from score_jax.report.comparison import results
from tests.report.comparison import fake_results
from tests.report.comparison.fake_results import rewards


@pytest.fixture
def runs(tmp_path):
    for seed in (1, 2):
        ours = fake_results.run(tmp_path / "runs" / f"s-{seed}", "score", seed, rewards(0.5, 0.9))
        fake_results.study(ours, above=0.1)
        fake_results.run(tmp_path / "runs" / f"m-{seed}", "multi_turn_rl", seed, rewards(0.5, 0.5))
        for bonus, second in ((0.0, 0.88), (30.0, 0.2)):
            name = f"alpha@{bonus:g}"
            folder = tmp_path / "varied" / f"{name}-{seed}"
            fake_results.run(folder, name, seed, rewards(0.5, second), bonus=bonus)
    return tmp_path


def test_everything_that_was_run_is_in_it(runs):
    out = runs / "RESULTS.md"
    arguments = [f"--runs={runs}/runs", f"--sensitivity={runs}/varied", f"--out={out}"]
    results.main(arguments)
    text = out.read_text()
    for piece in (
        "**Seeds**: 1, 2.",
        "layout of the paper's Table 2",
        "| SCoRe | 2 | 200 |",
        "| SCoRe's second attempt is better than its first (Δ > 0) | **holds** | 2 of 2 |",
        "| 32 | 50.0 | 10 | 60.0 | 60.0 | 10 | +10.0 +10.0 |",
        "- `alpha`: 0, 10 kept Acc@t2 within 5 points; 30 did not.",
        "--config.stages.stage2.bonus=30.0",
        "python -m score_jax.report.comparison.results --runs=",
        "Revisions: abc.",
    ):
        assert piece in text, piece
    assert "Three attempts" not in text  # none were run
    figures = {path.name for path in (runs / "docs").glob("*.png")}
    assert figures == {
        "results_scaling_score.png",
        "results_edits.png",
        "results_sensitivity.png",
    }
    assert all(f"docs/{name}" in text for name in figures)
    results.main(arguments)
    assert out.read_text() == text


def test_three_attempts_are_told_as_they_are(tmp_path):
    rising = rewards(0.3, 0.6, attempts=3)
    fake_results.run(tmp_path / "runs" / "t", "three_attempts", 1, rising)
    results.main([f"--runs={tmp_path}/runs", f"--out={tmp_path}/RESULTS.md"])
    text = (tmp_path / "RESULTS.md").read_text()
    said = "three_attempts, after trained: Acc@t1 ≤ Acc@t2 ≤ Acc@t3 in 1 of 1 runs"
    assert f"{said}; Acc@t3 − Acc@t2 +0.0 points." in text


def test_selective_revision_stands_beside_plain_score_with_its_tokens(runs):
    fake_results.run(runs / "runs" / "v", "selective", 1, rewards(0.5, 0.8))
    results.main([f"--runs={runs}/runs", f"--out={runs}/RESULTS.md"])
    text = (runs / "RESULTS.md").read_text()
    assert "| score | 2 | 50.0 50.0 | 90.0 90.0 | – | – | 14.0 14.0 |" in text
    assert "| selective | 1 | 50.0 | 80.0 | – | – | 14.0 |" in text
