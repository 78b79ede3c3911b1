"""The part on real weights is made from its own runs, and the two writers leave each other's be."""

import json

import pytest

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.report.comparison import loaded, real, results
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
    qwen = fake_results.run(tmp_path / "qwen", "x", 0, rewards(0.4, 0.4), source="/a/q.gguf")
    base = json.loads((qwen / "report/summary.json").read_text())["stages"]["base"]
    for name in ("base.json", "base.humaneval.json", "latest.json"):
        jsonfiles.write(qwen / "evaluations" / name, base)
    of_real = [f"--runs={laptop}", f"--weights={qwen}", f"--out={out}"]
    real.main(of_real)
    alone = out.read_text()
    for piece in (
        "`b.gguf`",
        "| `q.gguf` | arithmetic | 200 | 30.0 [24.1, 36.7] | 25.0 [19.5, 31.4] | -5.0 [",
        "| `q.gguf` | humaneval | 200 |",
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
    without = [flag for flag in of_real if not flag.startswith("--weights")]
    real.main(without)  # what other directories showed stays
    assert out.read_text() == both.replace(f" --weights={qwen}", "")


def test_a_published_figure_stands_beside_ours_and_a_folder_without_one_is_refused(tmp_path):
    source = "/a/Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf"
    run = fake_results.run(tmp_path / "q", "x", 0, rewards(0.4, 0.4), source=source)
    with pytest.raises(InputError, match=r"has no evaluations/base\.json"):
        loaded.part([run])
    with pytest.raises(InputError, match="is not a work directory"):
        loaded.part([tmp_path])
    base = json.loads((run / "report/summary.json").read_text())["stages"]["base"]
    for name in ("base.json", "base.humaneval.json"):
        jsonfiles.write(run / "evaluations" / name, base)
    lines = loaded.part([run]).splitlines()
    assert lines[-2].endswith("| – |")
    assert lines[-1].endswith("| 61.6, Qwen2.5-Coder technical report |")
