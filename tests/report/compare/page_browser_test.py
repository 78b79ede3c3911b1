"""The page that compares runs in a headless Chromium: what a person sees and does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from score_jax.report.compare import page
from tests.report.browsing import Opened
from tests.report.compare.contents_test import change
from tests.report.run_page import fake_runs

HOSTILE = "<script>document.title='pwned'</script>"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Three runs: A solves problems 1, 2 and 3, B and C other ones; C has another Stage II."""
    folder = tmp_path_factory.mktemp("three")
    solved = {"A": (1, 2, 3), "B": (1, 2, 4, 5), "C": (1,)}
    for name, right in solved.items():
        rows = [
            fake_runs.transcript(i, (f"first {HOSTILE}", False), (f"second of {name}", i in right))
            for i in range(8)
        ]
        fake_runs.write(folder / f"run-{name}", transcripts={"stage2": rows})
    change(folder / "run-B", bonus=0.0)
    return page.write([folder / f"run-{name}" for name in solved], folder / "compare.html")


@pytest.fixture
def shown(browser, written) -> Iterator[Opened]:
    opened = Opened(browser, written)
    yield opened
    assert opened.complaints == []
    assert opened.requests == [opened.url]
    assert opened.tab.title() != "pwned"
    opened.tab.close()


def options(shown: Opened, name: str) -> list[str]:
    return shown.tab.locator(f"select[name={name}] option").all_inner_texts()


def test_runs_differences_and_settings_are_tables(shown):
    runs = shown.text("#runs-table")
    assert "run-A" in runs and "37.5%" in runs and "50.0%" in runs and "finished" in runs
    pairs = shown.text("#pairs-tables")
    assert "run-B − run-A" in pairs and "+12.5" in pairs and "−25.0" in pairs
    settings = shown.text("#settings-table")
    assert "stages.stage2.bonus" in settings and "seed" not in settings


def test_charts_have_a_line_for_each_run_and_show_values_under_the_pointer(shown):
    chart = shown.tab.locator("#main-charts figure").nth(1)
    assert chart.locator("h3").inner_text() == "Attempt 2 right"
    assert {f"run{i}" for i in (1, 2, 3)} <= set(
        " ".join(
            chart.locator("polyline.curve").evaluate_all("l => l.map((e) => e.classList.value)")
        ).split()
    )
    chart.locator("svg").hover()
    legend = chart.locator(".legend").inner_text()
    assert legend.count("60.0%") == 3 and "run-C" in legend and "step" in legend


def test_problems_are_filtered_by_which_run_is_right(shown):
    assert shown.text("#count").startswith("4 of 8 problems")
    assert options(shown, "which") == [
        "the runs differ (4)", "all (8)", "A right, B, C wrong (1)", "A, B right, C wrong (1)",
        "B right, A, C wrong (2)", "A, B, C right (1)", "A, B, C wrong (3)",
    ]  # fmt: skip
    shown.choose(which="B right, A, C wrong (2)")
    assert shown.text("#count").startswith("2 of 8")
    assert shown.text("#detail h3") == "fake/test/4"
    assert "second of B" in shown.text("#detail") and "second of C" in shown.text("#detail")
    shown.tab.locator("#list").press("j")
    assert shown.text("#detail h3") == "fake/test/5"
    shown.choose(attempt="1")
    assert shown.text("#count").startswith("8 of 8")  # no first attempt is right: nothing differs
    shown.tab.locator("input[name=search]").fill("plus 7")
    assert shown.text("#count").startswith("1 of 8")
    assert HOSTILE in shown.text("#detail")


def test_runs_of_other_stages_are_laid_over_each_other_by_their_rl_steps(browser, tmp_path):
    fake_runs.write(tmp_path / "a")
    fake_runs.write(tmp_path / "b", stages=("base", "stage1"))
    config = fake_runs.read_json(tmp_path / "b" / "config.json")
    config["settings"] |= {"recipe": ["base", "stage1"]}
    fake_runs.jsonfiles.write(tmp_path / "b" / "config.json", config)
    opened = Opened(browser, page.write([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html"))
    assert "The stages of the runs differ" in opened.text("#curves-note")
    assert "Latest of each" in opened.text("#pairs-tables")
    assert "After stage1" in opened.text("#pairs-tables")
    assert not opened.complaints


def test_a_narrow_window_needs_no_scrolling_sideways(browser, written):
    opened = Opened(browser, written, viewport={"width": 360, "height": 800})
    assert not opened.is_wider_than_its_window()
