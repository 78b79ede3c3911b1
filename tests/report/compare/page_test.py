"""The page that compares runs, as a file."""

import re

import pytest

from score_jax.problem import InputError
from score_jax.report.compare import __main__ as command
from score_jax.report.compare import contents, page
from tests.report.run_page import fake_runs
from tests.report.run_page.page_test import HOSTILE, Parsed, embedded_data


@pytest.fixture
def two(tmp_path):
    rows = [fake_runs.transcript(i, (text, False), (text, True)) for i, text in enumerate(HOSTILE)]
    return [
        fake_runs.write(tmp_path / name, transcripts={"stage2": rows}) for name in ("a", "<b>&")
    ]


def test_the_page_holds_what_contents_read_and_hostile_text_stays_in_its_element(two):
    data = contents.of(two)
    parsed = Parsed(page.render(data))
    assert embedded_data(parsed) == data
    assert [tag for tag, _ in parsed.tags].count("script") == 2
    assert not [a for _, a in parsed.tags if {"src", "srcset", "action"} & a.keys()]


def test_nothing_is_loaded_and_nothing_is_parsed_as_markup():
    for code in map(page.source, page.SCRIPTS):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)
        assert "http" not in code and "</script" not in code


def test_the_command_writes_one_file_that_links_the_pages_of_the_runs(two, tmp_path, capsys):
    fake_runs.evaluation(two[0], "stage2", fake_runs.made_up("stage2", 5))
    (two[0] / "report").mkdir()
    (two[0] / "report" / "index.html").write_text("its page")
    out = tmp_path / "out" / "both.html"
    command.main([*map(str, two), f"--out={out}"])
    assert capsys.readouterr().out == f"{out}\n"
    text = out.read_text(encoding="utf-8")
    pages = [run["page"] for run in embedded_data(Parsed(text))["runs"]]
    assert pages == ["../a/report/index.html", None]
    assert "<title>a, &lt;b&gt;&amp; · compared</title>" in text


def test_a_folder_as_the_file_is_refused(two, tmp_path):
    with pytest.raises(InputError, match=r"is a folder\. Name a file"):
        command.main([*map(str, two), f"--out={tmp_path}"])
