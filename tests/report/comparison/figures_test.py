"""Figures are drawn from what runs leave, one run or several."""

from score_jax.report.comparison import figures


def budget(solutions, accuracy):
    way = {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy + 0.1], "tokens": solutions}
    return {"solutions": solutions, **dict.fromkeys(("parallel", "sequential"), way)} | {
        "sequential_all": way
    }


def test_every_figure_is_drawn(tmp_path):
    studies = [{"budgets": [budget(2, 0.4 + x), budget(4, 0.5 + x)]} for x in (0.0, 0.1)]
    made = [
        figures.scaling(studies[:1], tmp_path / "one.png"),
        figures.scaling(studies, tmp_path / "two.png"),
        figures.edit_ratios({"a": [[1, 3]], "b": [[2, 2], [4, 0]]}, tmp_path / "edits.png"),
        figures.sensitivity(
            {"alpha": {"1": [(0.3, 0.5)], "0": [(0.3, 0.4), (0.3, 0.5)]}}, tmp_path / "s.png"
        ),
    ]
    assert all(path.stat().st_size > 10_000 for path in made)
