"""The part on real weights is made from its own runs, and the two writers leave each other's be."""

from score_jax.report.comparison import real, results
from tests.report.comparison import fake_results
from tests.report.comparison.fake_results import rewards


def test_each_command_rewrites_its_own_part(tmp_path):
    toy, laptop, out = tmp_path / "toy", tmp_path / "laptop", tmp_path / "RESULTS.md"
    fake_results.run(toy / "s-1", "score", 1, rewards(0.5, 0.9))
    for seed in (31, 32):
        fake_results.run(
            laptop / f"score-{seed}", "score", seed, rewards(0.4, 0.7), source="/a/b.gguf"
        )
        fake_results.run(
            laptop / f"m-{seed}", "multi_turn_rl", seed, rewards(0.4, 0.4), source="/a/b.gguf"
        )
    of_real = [f"--runs={laptop}", f"--out={out}"]
    real.main(of_real)
    alone = out.read_text()
    for piece in (
        "`b.gguf`",
        "**Seeds**: 31, 32.",
        "| score, after trained | 2 | 200 | 40.0 [40.0, 40.0] | 70.0 [70.0, 70.0] |",
        "SCoRe's Acc@t2 is above that of multi-turn RL | **holds** | 2 of 2 |",
        "multi_turn_rl 1 1; score 1 1",
    ):
        assert piece in alone, piece
    results.main([f"--runs={toy}", f"--out={out}"])
    both = out.read_text()
    assert "layout of the paper's Table 2" in both and both.endswith(alone.partition("\n\n")[2])
    real.main(of_real)
    assert out.read_text() == both
