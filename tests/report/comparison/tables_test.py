"""Pooling of runs over seeds, in the layouts of the paper."""

import csv
import statistics

import pytest

from score_jax.problem import InputError
from score_jax.report.comparison import finished, tables
from tests.report.comparison import fake_results
from tests.report.comparison.fake_results import rewards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed, second in ((1, 0.8), (2, 0.9)):
        fake_results.run(folder / f"score-{seed}", "score", seed, rewards(0.5, second))
    fake_results.run(folder / "star-1", "star", 1, rewards(0.4, 0.4))
    fake_results.run(folder / "no_stage1-1", "no_stage1", 1, rewards(0.5, 0.5))
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "config.json").write_text("{}")
    return folder


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines}


def test_table_2_has_the_papers_rows_and_the_base_model_once_per_seed(folder):
    rows = rows_of(tables.markdown(tables.layout(finished.read([folder]), tables.TABLE_2)))
    assert [*rows] == ["approach", "---", "Base model", "STaR, D", "SCoRe"]
    assert rows["approach"][2:7] == ["Acc@t1", "Acc@t2", "Δ", "i→c", "c→i"]
    assert rows["Base model"][:5] == ["2", "200", *rows["Base model"][2:5]]
    assert rows["Base model"][4] == "-5.0 [-5.0, -5.0]"
    # Mean 85, deviation 7.07 over two seeds: t of one degree is 12.7, and shares end at 100.
    assert rows["SCoRe"][3] == "85.0 [21.5, 100.0]"
    assert rows["SCoRe"][-1] == "+30.0 +40.0"
    # One run alone has its own interval over problems.
    assert rows["STaR, D"][2].startswith("40.0 [33.")


def test_table_4_has_the_ablations(folder):
    rows = rows_of(tables.markdown(tables.layout(finished.read([folder]), tables.TABLE_4)))
    assert [*rows][2:] == ["SCoRe", "w/o Stage I"]


def test_only_the_table_of_stages_has_the_parts_of_what_was_repaired(tmp_path):
    fake_results.run(tmp_path / "a", "score", 1, rewards(0.25, 0.75))
    runs = finished.read([tmp_path])
    parts = {"format_repaired": 0.1, "answer_repaired": 0.4, "lenient_attempt1": 0.5}
    for metrics in runs[0].stages.values():
        metrics.update(parts)
    rows = rows_of(tables.markdown(tables.stages(runs), details=True))
    assert rows["approach"][8:11] == ["i→c, format", "i→c, answer", "Acc@t1, lenient"]
    assert rows["score, after trained"][8:11] == [
        f"{100 * p:.1f} [{100 * p:.1f}, {100 * p:.1f}]" for p in parts.values()
    ]
    assert "lenient" not in tables.markdown(tables.layout(runs, tables.TABLE_2))


def test_the_interval_of_a_mean_is_students():
    values = [0.1, 0.4, 0.3]
    mean, low, high = tables.mean_interval(values)
    assert mean == pytest.approx(statistics.fmean(values))
    half = 4.303 * statistics.stdev(values) / 3**0.5
    assert (low, high) == (pytest.approx(mean - half), pytest.approx(mean + half))


def test_the_csv_has_shares_with_their_bounds(folder):
    text = tables.as_csv(tables.layout(finished.read([folder]), tables.TABLE_2))
    rows = {row["approach"]: row for row in csv.DictReader(text.splitlines())}
    assert float(rows["SCoRe"]["accuracy_attempt2"]) == pytest.approx(0.85)
    assert float(rows["STaR, D"]["delta_low"]) == pytest.approx(0.0)


def test_the_command_prints_all_tables_and_names_patterns_that_find_nothing(folder, capsys):
    tables.main([f"--runs={folder}/s*"])
    said = capsys.readouterr().out
    assert "STaR, D" in said and "score, after trained" in said
    with pytest.raises(InputError, match="no finished run in /nowhere"):
        tables.main(["--runs=/nowhere"])
