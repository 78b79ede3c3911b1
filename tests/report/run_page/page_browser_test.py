"""The run page in a headless Chromium: what a person sees and does.

browsing.py says where they are skipped.
"""

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.report.run_page import page as run_page
from score_jax.workdir import lock
from tests.report import browsing
from tests.report.browsing import Opened
from tests.report.run_page import fake_runs

PICTURES = Path(__file__).parent / "pictures"
SHRINK = 4  # screenshots are compared at a quarter of their size
LOAD_SEC, FILTER_MS = 2.0, 200.0

# Milliseconds from the start of the navigation until a frame is drawn.
DRAWN_AT = """async () => {
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now();
}"""
# Milliseconds from each of several changes of a filter until the next frame is drawn.
FILTERED_IN = """async () => {
  const changes = [
    ["search", "final answer: 77"], ["search", ""], ["outcome", "wrong-right"], ["order", "edited"],
  ];
  const taken = [];
  for (const [name, value] of changes) {
    const control = document.querySelector(`[name=${name}]`);
    const start = performance.now();
    control.value = value;
    control.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    taken.push(performance.now() - start);
  }
  return taken;
}"""

HOSTILE = [
    ("<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">", "b"),
    ("</script></pre></body><h1>gone</h1>", "&lt;b&gt; {{data}}"),
    ("x" * 1_000_000, "y" * 1_000_000),
    ("\u202eoverride \u0645\u0631\u062d\u0628\u0627 12", "\ud800\x00\u2028 end"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run with five known transcripts at its end."""
    rows = [
        fake_runs.transcript(0, ("so 3 + 4 is 8", False), ("so 3 + 4 is 7", True), level="1"),
        fake_runs.shade(
            fake_runs.transcript(
                1, ("it is 2", True), ("it is \N{GRINNING FACE} 2", False), level="4"
            )
        ),
        fake_runs.transcript(2, ("same", False), ("same", False), level="7", edit=0.0),
        fake_runs.transcript(3, ("Ünïcode", True), ("Ünïcode and more", True), level="10"),
        fake_runs.transcript(4, ("a b c d e f g h", False), ("a b c d e", True), level="13"),
    ]
    folder = fake_runs.write(tmp_path_factory.mktemp("finished"), transcripts={"stage2": rows})
    return run_page.write(folder)


@pytest.fixture
def shown(browser, finished) -> Iterator[Opened]:
    """The finished run's page; whatever a test does, the page may not complain."""
    opened = Opened(browser, finished)
    yield opened
    assert opened.complaints == []
    assert opened.requests == [opened.url]
    opened.tab.close()


def test_where_a_chromium_must_be_there_a_missing_one_is_no_skip(monkeypatch):
    monkeypatch.delenv("PAGE_TESTS", raising=False)
    browsing.refuse_to_skip()
    monkeypatch.setenv("PAGE_TESTS", "required")
    with pytest.raises(pytest.fail.Exception, match="chromium or Python's playwright is missing"):
        browsing.refuse_to_skip()


def test_the_state_says_whether_a_run_still_runs(browser, tmp_path):
    fake_runs.write(tmp_path, stages=("base", "stage1"))
    with lock.held(tmp_path):
        running = Opened(browser, run_page.write(tmp_path))
    assert "running: stage1, step 60 of 60" in running.text("#status")
    stopped = Opened(browser, run_page.write(tmp_path))
    assert "stopped: stage1, step 60 of 60" in stopped.text("#status")
    assert "the same command goes on" in stopped.text("#status")
    old = tmp_path / "old.html"
    old.write_text(
        re.sub(r'"written_sec":\d+', f'"written_sec":{int(time.time()) - 7200}', stopped.source)
    )
    assert "2 h 0 min ago" in Opened(browser, old).text("#status")
    for page in (running, stopped):
        page.tab.close()


def test_every_section_is_drawn(shown):
    assert "finished" in shown.text("#status")
    assert "Attempt 2 right" in shown.text("#headline") and "60.0%" in shown.text("#headline")
    assert "No alarms." in shown.text("#alarms")
    assert shown.tab.locator("#evaluations tbody tr").count() == 3
    for title in ("Right answers", "KL to the base model", "Changed", "Length", "Truncated"):
        assert title in shown.text("#curves")
    assert shown.tab.locator("#curves svg:visible polyline").count() > 10
    assert shown.tab.locator("#flips table").count() == 3
    assert shown.tab.locator("#flips rect.bar").count() == 3 * 20
    assert "update 40%" in shown.text("#speed")
    assert "samples_per_problem" in shown.text("#settings")
    sent = shown.tab.locator("#settings .sent pre").all_text_contents()
    assert sent == ["<|im_start|>user\n7+8=<|im_end|>", "<b>?"]


def test_results_stand_by_level_and_as_rates_among_first_attempts(shown, finished):
    table = shown.tab.locator("table[aria-labelledby=groups-level]")
    heads = table.locator("thead th").all_inner_texts()
    assert heads == ["level", "after base", "after stage1", "n"]  # one problem a level is no group
    rows = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    assert [row[0] for row in rows] == ["1", "4", "7", "10", "13"]
    base = fake_runs.read_json(finished.parents[1] / "evaluations" / "base.json")
    for level, after_base, _, n in rows:
        group = base["details"]["by"]["level"][level]
        first, second = (f"{group[f'accuracy_attempt{a}']:.1%}" for a in (1, 2))
        assert (after_base, n) == (f"{first} → {second}", "8")
    table = shown.tab.locator("#evaluations table").first
    heads = table.locator("thead th").all_inner_texts()
    last = table.locator("tbody tr").last.locator("td").all_inner_texts()
    by_head = dict(zip(heads[1:], last, strict=True))
    assert by_head["of the wrong, fixed"].startswith("66.7%")
    assert by_head["of the right, broken"].startswith("50.0%")


def test_the_kl_is_shown_as_what_it_costs_and_so_are_mixed_groups(shown):
    figure = shown.tab.locator("#policy-charts figure", has_text="KL as reward cost")
    figure.locator("svg").focus()
    shown.tab.keyboard.press("ArrowRight")
    shown.tab.keyboard.press("ArrowRight")
    # beta 0.5 times 0.02 nats, and 0.01 times 0.04
    assert "attempt 1 0.01, mean" in figure.locator(".legend").inner_text()
    assert "attempt 2 4.0e-4" in figure.locator(".legend").inner_text()
    figure = shown.tab.locator("#policy-charts figure", has_text="Mixed groups")
    assert "attempt 2 70.0%" in figure.locator("svg").get_attribute("aria-label")


def test_flips_are_green_and_red_and_have_signs(shown):
    colour = "e => getComputedStyle(e).color.match(/\\d+/g).slice(0, 3).map(Number)"
    for place in ("#flips > div:nth-child(3)", "#list"):
        red, green, _ = shown.tab.locator(f"{place} .fixed").first.evaluate(colour)
        assert green > red + 50
        red, green, _ = shown.tab.locator(f"{place} .broken").first.evaluate(colour)
        assert red > green + 50
    assert "+ 40.0%" in shown.text("#flips > div:nth-child(3) .fixed")
    assert "− 20.0%" in shown.text("#flips > div:nth-child(3) .broken")
    assert "+ wrong → right" in shown.text("#list") and "− right → wrong" in shown.text("#list")


def test_settings_are_what_differs_with_a_command_to_copy(shown):
    table = shown.tab.locator("table[aria-labelledby=differences]")
    rows = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    assert ["stages.stage2.bonus", "10", "0"] in rows
    assert ["seed", "7", "0"] in rows
    assert not [row for row in rows if row[0] == "model.dtype" and row[1] == row[2]]
    command = shown.text("#settings .command pre")
    assert command == "python -m score_jax.main --config=configs/fake.py --workdir='runs/a b'"
    shown.tab.locator("#settings .command button").click()
    assert shown.tab.evaluate("getSelection().toString()") == command
    shown.tab.get_by_text("All settings").click()
    box = shown.tab.locator("#settings .stages").evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert box[0] <= box[1]  # no stage is cut off
    heads = shown.tab.locator("#settings .stages thead th").all_inner_texts()
    assert heads == ["stages", "base", "stage1", "stage2"]


def test_all_columns_of_the_results_are_seen_at_the_default_width(browser, tmp_path):
    fake_runs.write(tmp_path)
    for name in ("base", "stage1", "stage2"):
        fake_runs.evaluation(tmp_path, name, fake_runs.made_up(name, 300))
    opened = Opened(browser, run_page.write(tmp_path), viewport={"width": 1280, "height": 800})
    assert "0.0" in opened.tab.locator("#evaluations tbody td").nth(-2).inner_text()  # p
    for table in opened.tab.locator("#evaluations .scroll").all():
        inner, outer = table.evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert inner <= outer
    opened.tab.close()


def test_the_newest_checkpoint_and_scaling_have_tables(browser, tmp_path):
    fake_runs.write(tmp_path)
    fake_runs.evaluation(tmp_path, "latest", fake_runs.made_up("stage2", 5))
    jsonfiles.write(tmp_path / "scaling" / "stage2.json", fake_runs.SCALING)
    opened = Opened(browser, run_page.write(tmp_path))
    assert "The newest checkpoint, by --mode=evaluate" in opened.text("#evaluations")
    assert opened.tab.locator("table[aria-labelledby=evaluations-latest] tbody tr").count() == 1
    rows = opened.tab.locator("#scaling tbody tr").all_inner_texts()
    assert len(rows) == 2 and "+10.0 [+2.0, +18.0]" in rows[0]
    opened.choose(evaluation="latest")
    assert opened.count() == "5 of 5"
    assert opened.complaints == []
    opened.tab.close()


def test_training_samples_stand_beside_evaluations_with_their_groups(browser, tmp_path):
    fake_runs.write(tmp_path)
    rows = [
        *fake_runs.samples("stage1", 1, 3, 6),
        *fake_runs.samples("stage1", 50, 9),
        *fake_runs.samples("stage2", 1, 5),
    ]
    jsonfiles.write_lines(tmp_path / "samples.jsonl", rows)
    opened = Opened(browser, run_page.write(tmp_path))
    group = opened.tab.locator("[name=evaluation] optgroup")
    assert group.get_attribute("label") == "Training samples"
    assert group.locator("option").all_inner_texts() == [
        "stage1, step 1", "stage1, step 50", "stage2, step 1",
    ]  # fmt: skip
    assert opened.tab.locator("[name=evaluation]").input_value() == "stage2"
    opened.choose(evaluation="stage1, step 1")
    assert opened.count() == "8 of 8"
    opened.choose(outcome="wrong-right")
    assert opened.count() == "2 of 8"
    assert "sample 4 of 4" in opened.text("#detail .facts")
    second = opened.text(".attempt2 .verdict")
    assert "reward 1, advantage +7.5, equal" in second
    others = opened.tab.locator(".history button").all_inner_texts()
    assert len(others) == 4 and "sample 1 wrong → wrong, advantages +0, −2.5" in others[0]
    opened.choose(outcome="")
    opened.tab.locator(".history button").nth(1).click()
    assert opened.text(".attempt1 .verbatim") == "first of 1"
    assert opened.complaints == []
    opened.tab.close()


def test_a_transcript_has_an_address_of_its_own(browser, finished, tmp_path):
    opened = Opened(browser, finished)
    assert "#" not in opened.tab.url
    opened.tab.keyboard.press("j")
    assert opened.tab.url.endswith("#t=stage2/fake%2Ftest%2F1")
    opened.tab.locator(".history button", has_text="base").click()
    address = opened.tab.url
    assert address.endswith("#t=base/fake%2Ftest%2F1")
    opened.tab.goto("about:blank")
    opened.tab.goto(address)
    opened.tab.wait_for_selector("html[data-ready]")
    assert opened.text("#detail h3") == "fake/test/1"
    assert opened.tab.locator("[name=evaluation]").input_value() == "base"
    opened.tab.evaluate("location.hash = '#t=stage2/fake%2Ftest%2F3'")
    opened.tab.wait_for_function("document.querySelector('#detail h3').textContent.endsWith('3')")
    opened.tab.evaluate("location.hash = '#t=nowhere/x%'")
    assert opened.text("#detail h3") == "fake/test/3"
    assert opened.complaints == []
    opened.tab.close()


def test_letters_move_the_list_from_everywhere_and_escape_leads_back(shown):
    press = shown.tab.keyboard.press
    shown.tab.locator("#main-charts svg").first.focus()
    press("j")
    assert shown.text("#detail h3") == "fake/test/1"
    assert shown.tab.evaluate("document.activeElement.id") == "list"
    press("/")
    shown.tab.keyboard.type("Final")
    assert shown.count() == "0 of 5"
    press("Escape")
    assert shown.tab.evaluate("document.activeElement.id") == "list"
    assert shown.count() == "0 of 5"  # a search is kept
    press("Escape")
    assert shown.count() == "5 of 5"
    press("k")
    assert shown.text("#detail h3") == "fake/test/0"


def test_it_is_said_how_many_transcripts_have_token_values(shown):
    note = "Log-probs of tokens are kept for one transcript of this evaluation, not for this one."
    assert note in shown.text("#detail")
    shown.choose(evaluation="base")
    assert "Log-probs" not in shown.text("#detail")


def test_further_test_sets_have_tables_of_their_own(browser, tmp_path):
    fake_runs.write(tmp_path)
    config = fake_runs.read_json(tmp_path / "config.json")
    config["settings"]["problems"] = {"tests": {"hard": {}}}
    jsonfiles.write(tmp_path / "config.json", config)
    for name in ("base.hard", "stage1.hard"):
        fake_runs.evaluation(tmp_path, name, fake_runs.made_up("base", 5))
    opened = Opened(browser, run_page.write(tmp_path))
    assert "On hard" in opened.text("#evaluations")
    assert opened.tab.locator("table[aria-labelledby=evaluations-hard] tbody tr").count() == 2
    opened.tab.close()


def test_transcripts_are_filtered_by_what_happened_level_length_and_text(shown):
    assert shown.count() == "5 of 5"
    shown.choose(outcome="wrong-right")
    assert shown.count() == "2 of 5"
    shown.choose(tag_level="13")
    assert shown.count() == "1 of 5"
    assert shown.text("#detail h3") == "fake/test/4"
    shown.tab.get_by_role("button", name="Clear").click()
    shown.choose(second="same")
    assert shown.text("#detail h3") == "fake/test/2"
    shown.tab.get_by_role("button", name="Clear").click()
    shown.tab.fill("[name=least]", "6")
    assert shown.count() == "2 of 5"
    shown.tab.fill("[name=most]", "7")
    assert shown.count() == "1 of 5"
    shown.tab.get_by_role("button", name="Clear").click()
    shown.tab.fill("[name=search]", "ünïCODE and")
    assert shown.text("#detail h3") == "fake/test/3"
    shown.tab.fill("[name=search]", "nowhere")
    assert shown.count() == "0 of 5"
    assert "No transcript matches." in shown.text("#list")
    assert shown.text("#detail") == ""


def test_levels_are_in_the_order_of_their_numbers(shown):
    options = shown.tab.locator("select[name='tag:level'] option").all_inner_texts()
    assert options == ["any", "1", "4", "7", "10", "13"]


def test_the_diff_marks_the_words_that_changed_on_each_side(shown):
    first, second = shown.tab.locator(".attempt").all()
    assert "Attempt 1: wrong" in first.inner_text() and "unequal" in first.inner_text()
    assert "Attempt 2: right" in second.inner_text() and "reward 1" in second.inner_text()
    assert first.locator("mark").all_inner_texts() == ["8"]
    assert second.locator("mark").all_inner_texts() == ["7"]
    left, right = first.bounding_box(), second.bounding_box()
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]


def test_a_reward_of_any_size_stands_beside_right_or_wrong(browser, tmp_path):
    rows = [fake_runs.transcript(0, ("one", False), ("two", True))]
    rows[0]["attempts"][0]["reward"], rows[0]["attempts"][1]["reward"] = 0.35, -2.0
    fake_runs.write(tmp_path, transcripts={"stage2": rows})
    steps = fake_runs.steps_of(tuple(fake_runs.STAGES))
    for row in steps:
        if row["stage"] != "base":
            row |= {"reward/attempt1": -0.4, "reward/near/attempt1": 0.8}
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", steps)
    opened = Opened(browser, run_page.write(tmp_path))
    first, second = opened.tab.locator(".verdict").all_inner_texts()
    assert "Attempt 1: wrong" in first and "reward 0.35," in first
    assert "Attempt 2: right" in second and "reward −2," in second
    heads = opened.tab.locator("#evaluations thead th").all_inner_texts()
    last = opened.tab.locator("#evaluations tbody tr").last.locator("td").all_inner_texts()
    assert heads[3:5] == ["reward 1", "reward 2"]
    assert last[2].startswith("0.35") and last[3].startswith("−2")
    charts = opened.tab.locator("#policy-charts h3").all_inner_texts()
    assert charts[:2] == ["Reward", "Reward: near"]
    assert opened.complaints == []
    opened.tab.close()


def test_the_reasons_of_each_attempt_are_in_a_table(browser, tmp_path):
    rows = [fake_runs.transcript(i, ("one", False), ("two", i == 0)) for i in range(4)]
    rows[3]["attempts"][0] |= {"reason": "<b>cut</b>", "lenient": True}
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    fake_runs.evaluation(tmp_path, "stage1", rows)
    steps = fake_runs.steps_of(("base", "stage1"))
    steps[-1] |= {"reason/timeout/attempt2": 0.125, "reason/crash/attempt2": 0.0}
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", steps)
    opened = Opened(browser, run_page.write(tmp_path))
    for stage in opened.tab.locator("#evaluations tbody tr").all():
        assert stage.inner_text().count("25.0%") >= 2  # attempt 2 right, answer repaired
    assert "format 0.0% + answer 25.0%" in opened.text("#headline")
    heads = opened.tab.locator("#evaluations thead th").all_inner_texts()
    assert heads[4:7] == ["wrong → right", "format repaired", "answer repaired"]
    table = opened.tab.locator("#reasons table")
    heads = table.locator("thead th").all_inner_texts()
    assert heads[:4] == ["after", "attempt", "right", "leniently"]
    assert set(heads[4:]) == {"unequal", "equal", "_b_cut_b_", "timeout"}
    lines = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    by_place = [dict(zip(heads, line, strict=True)) for line in lines]
    assert [(line["after"], line["attempt"]) for line in by_place] == [
        ("base", "1"), ("", "2"), ("stage1", "1"), ("", "2"),
        ("stage1, step 60, training samples", "2"),
    ]  # fmt: skip
    assert by_place[0]["unequal"] == "75.0%" and by_place[0]["_b_cut_b_"] == "25.0%"
    assert by_place[1]["right"] == "25.0%" and by_place[0]["leniently"].startswith("25.0%")
    assert "4.6 … 69.9" in by_place[0]["leniently"]
    assert by_place[4]["right"] == "60.0%" and by_place[4]["leniently"] == "–"
    opened.choose(missed="found leniently")
    assert opened.count() == "1 of 4"
    assert "(found leniently)" in opened.tab.locator(".verdict").first.inner_text()
    assert by_place[1]["equal"] == "25.0%" and by_place[1]["timeout"] == "–"
    assert by_place[4]["timeout"] == "12.5%"
    assert opened.complaints == []
    opened.tab.close()


def test_the_diff_is_a_shortest_one_and_loses_nothing(shown):
    checked = shown.tab.evaluate(
        """() => {
          let seed = 1;
          const draw = (n) => (seed = (seed * 48271) % 2147483647) % n;
          const words = () => Array.from({length: draw(30)}, () => "abcd"[draw(4)]);
          const common = (a, b) => {
            const t = a.map(() => []);
            const at = (i, j) => (i < 0 || j < 0 ? 0 : t[i][j]);
            a.forEach((x, i) => b.forEach((y, j) => {
              t[i][j] = x === y ? at(i - 1, j - 1) + 1 : Math.max(at(i - 1, j), at(i, j - 1));
            }));
            return at(a.length - 1, b.length - 1);
          };
          for (let n = 0; n < 300; n++) {
            const [a, b] = [words(), words()];
            const kept = keptWords(a, b).map((set) => [...set].sort((x, y) => x - y));
            const left = kept[0].map((i) => a[i]).join();
            const right = kept[1].map((j) => b[j]).join();
            if (left !== right || kept[0].length !== common(a, b)) return `${a} / ${b}`;
            const [one, two] = [a.join(" "), b.join(" ")];
            const sides = wordDiff(one, two).map((side) => side.map((p) => p.text).join(""));
            if (sides[0] !== one || sides[1] !== two) return `lost: ${one} / ${two}`;
          }
          return "all";
        }"""
    )
    assert checked == "all"


def test_tokens_are_shaded_when_asked_for_and_stay_so(shown):
    assert shown.tab.locator("[name=shade]").count() == 0  # the first row has no values
    shown.tab.focus("#list")
    shown.tab.keyboard.press("j")
    options = shown.tab.locator("[name=shade] option").all_inner_texts()
    assert options == [
        "words that changed",
        "log-prob of each token",
        "log-prob relative to the base model",
    ]
    assert shown.tab.locator(".piece").count() == 0
    shown.choose(shade="log-prob of each token")
    assert shown.tab.evaluate("document.activeElement.name") == "shade"
    second = shown.tab.locator(".attempt2 .verbatim")
    assert second.evaluate("e => e.textContent") == "it is \N{GRINNING FACE} 2end"
    pieces = second.locator(".piece")
    assert pieces.all_inner_texts()[6] == "\N{GRINNING FACE}"
    classes = [pieces.nth(i).get_attribute("class") for i in range(5)]
    assert classes == [f"piece unlikely-{level}" for level in (0, 2, 3, 3, 4)]
    assert pieces.nth(1).get_attribute("title") == (
        "54.9% likely, log-prob -0.60; base model 30.1%, -1.20"
    )
    shown.choose(shade="log-prob relative to the base model")
    assert pieces.nth(1).get_attribute("class") == "piece likelier-2"
    assert pieces.nth(3).get_attribute("class") == "piece unlikelier-3"
    shown.tab.focus("#list")
    shown.tab.keyboard.press("j")  # no values here: words are marked
    assert shown.tab.locator(".piece").count() == 0
    shown.tab.keyboard.press("k")
    assert shown.tab.locator(".piece").count() > 10


def test_a_number_of_the_flip_table_opens_its_transcripts(shown):
    cell = shown.tab.locator("#flips > div:nth-child(3) .broken")
    assert "20.0%" in cell.inner_text()
    cell.click()
    assert shown.count() == "1 of 5"
    assert shown.text("#detail h3") == "fake/test/1"
    assert shown.tab.evaluate("document.activeElement.id") == "list"


def test_a_problem_is_followed_through_the_evaluations(shown):
    shown.tab.locator(".history button", has_text="base").click()
    assert shown.text("#detail h3") == "fake/test/0"
    assert shown.tab.locator("[name=evaluation]").input_value() == "base"
    assert shown.count() == "40 of 40"


def test_the_list_is_read_with_the_keyboard(shown):
    press = shown.tab.keyboard.press
    press("/")
    assert shown.tab.evaluate("document.activeElement.name") == "search"
    press("Tab")
    press("Tab")
    assert shown.tab.evaluate("document.activeElement.id") == "list"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.tab.evaluate(outline) == "solid"
    for key, wanted in (("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 4), ("j", 4), ("Home", 0)):
        press(key)
        assert shown.text("#detail h3") == f"fake/test/{wanted}"
        assert shown.tab.locator("[aria-selected=true]").get_attribute("id") == f"option-{wanted}"
        assert shown.tab.get_attribute("#list", "aria-activedescendant") == f"option-{wanted}"


def test_letters_typed_into_the_search_do_not_move_the_list(shown):
    shown.tab.locator("[name=search]").press_sequentially("j/k")
    assert shown.tab.locator("[name=search]").input_value() == "j/k"


def test_a_chart_tells_its_values_to_the_arrow_keys(shown, finished):
    chart = shown.tab.locator("#main-charts svg").first
    chart.focus()
    shown.tab.keyboard.press("ArrowRight")
    base = fake_runs.read_json(finished.parents[1] / "evaluations" / "base.json")
    legend = shown.tab.locator("#main-charts .legend").first
    assert f"attempt 2 {base['accuracy_attempt2']:.1%} [" in legend.inner_text()
    for _ in range(3):
        shown.tab.keyboard.press("ArrowRight")
    assert "stage1 step 3" in legend.inner_text()
    shown.tab.keyboard.press("ArrowLeft")
    assert "stage1 step 2" in legend.inner_text()


def test_every_line_of_a_chart_has_a_value_under_the_pointer(shown):
    figures = shown.tab.locator("#main-charts figure, #policy-charts figure")
    assert figures.count() >= 9
    for figure in figures.all():
        svg, legend = figure.locator("svg"), figure.locator(".legend")
        assert legend.locator("b").count() == 0
        svg.scroll_into_view_if_needed()
        box = svg.bounding_box()
        shown.tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60)
        lines = set(
            svg.locator(".curve").evaluate_all("all => all.map(e => e.getAttribute('class'))")
        )
        drawn = {line for line in lines if "raw" not in line}
        marks = set(svg.locator(".join").evaluate_all("all => all.map(e => e.classList[1])"))
        assert legend.locator("b").count() == len(drawn) + len(marks), legend.inner_text()
        assert "stage1 step" in legend.locator(".at").inner_text()


def test_a_noisy_line_is_drawn_smoothed_over_its_raw_values(browser, tmp_path):
    fake_runs.write(tmp_path)
    rows = fake_runs.steps_of(tuple(fake_runs.STAGES))
    for row in rows:
        if row["stage"] != "base":
            row["kl/attempt1"] = float(row["step"] % 2)
    jsonfiles.write_lines(tmp_path / "metrics.jsonl", rows)
    opened = Opened(browser, run_page.write(tmp_path))
    figure = opened.tab.locator("#policy-charts figure", has_text="KL to the base model")
    raw, mean = (
        [
            [float(pair.split(",")[1]) for pair in line.split()]
            for line in figure.locator(selector).evaluate_all(
                "all => all.map(e => e.getAttribute('points'))"
            )
        ]
        for selector in (".raw.attempt1", ".curve.attempt1:not(.raw)")
    )
    spread = max(raw[0]) - min(raw[0])
    assert spread > 50 and max(mean[0][5:]) - min(mean[0][5:]) < spread / 3
    figure.locator("svg").focus()
    for _ in range(12):
        opened.tab.keyboard.press("ArrowRight")
    assert "attempt 1 0, mean 0.4" in figure.locator(".legend").inner_text()
    opened.tab.close()


@pytest.mark.parametrize("width", [320, 375, 700, 1000])
def test_a_narrow_window_needs_no_scrolling_sideways(browser, finished, width):
    opened = Opened(browser, finished, viewport={"width": width, "height": 800})
    assert not opened.is_wider_than_its_window()
    opened.tab.locator("#optimisation summary").click()
    assert not opened.is_wider_than_its_window()
    assert opened.complaints == []
    opened.tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, finished, scheme):
    """Contrast by WCAG: 4.5 at least, for every element that has text of its own."""
    opened = Opened(browser, finished, color_scheme=scheme)
    opened.tab.focus("#list")
    opened.tab.keyboard.press("j")
    opened.choose(shade="log-prob relative to the base model")
    assert opened.tab.locator(".likelier-4").count() and opened.tab.locator(".unlikelier-4").count()
    poor = opened.tab.evaluate(
        """() => {
          const parse = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = (e) => {
            for (; e; e = e.parentElement) {
              const c = parse(getComputedStyle(e).backgroundColor);
              if (c.length < 4 || c[3] > 0) return c;
            }
          };
          const poor = [];
          for (const e of document.querySelectorAll("body *")) {
            const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
            if (!own || !e.checkVisibility() || e.closest("script, .skip")) continue;
            const style = getComputedStyle(e);
            const ink = parse(e.closest("svg") ? style.fill : style.color);
            const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
          }
          return [...new Set(poor)];
        }"""
    )
    assert poor == []
    opened.tab.close()


def test_hostile_transcripts_are_shown_as_text(browser, tmp_path):
    rows = [
        fake_runs.transcript(i, (a, False), (b, True), problem=a[:200])
        for i, (a, b) in enumerate(HOSTILE)
    ]
    fake_runs.shade(rows[0])
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    opened = Opened(browser, run_page.write(tmp_path))
    for number, (first, second) in enumerate(HOSTILE):
        if number:
            opened.tab.focus("#list")
            opened.tab.keyboard.press("j")
        bodies = opened.tab.locator(".attempt .verbatim").evaluate_all(
            "all => all.map(e => e.textContent)"
        )
        for body, text in zip(bodies, (first, second), strict=True):
            assert body == text[:20_000]
    opened.tab.focus("#list")
    opened.tab.keyboard.press("Home")
    opened.choose(shade="log-prob of each token")
    shaded = opened.tab.locator(".attempt1 .verbatim").evaluate("e => e.textContent")
    assert shaded == HOSTILE[0][0] + "end"
    assert opened.tab.title().endswith("· score_jax")
    assert opened.tab.locator("h1").count() == 1 and opened.tab.locator("img").count() == 0
    assert not opened.is_wider_than_its_window()
    assert opened.complaints == [] and opened.requests == [opened.url]
    opened.tab.close()


def test_the_rest_of_a_megabyte_line_is_shown_when_asked_for(browser, tmp_path):
    rows = [fake_runs.transcript(0, ("x" * 1_000_000, False), ("y", True))]
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    opened = Opened(browser, run_page.write(tmp_path))
    opened.tab.get_by_role("button", name="Show all 1,000,000 characters").click()
    length = opened.tab.locator(".attempt1 .verbatim").evaluate("e => e.textContent.length")
    assert length == 1_000_000
    assert not opened.is_wider_than_its_window()
    opened.tab.close()


def test_in_a_frame_of_a_notebook_the_links_stay_on_the_page(browser, finished):
    tab = browser.new_page(viewport={"width": 1000, "height": 800}, reduced_motion="reduce")
    tab.set_content("<iframe width=900 height=700></iframe>")
    source = finished.read_text(encoding="utf-8")
    tab.eval_on_selector("iframe", "(frame, page) => { frame.srcdoc = page; }", source)
    frame = tab.frame_locator("iframe")
    frame.locator("nav a", has_text="Transcripts").click()
    assert frame.locator("#count").inner_text().startswith("5 of 5")
    top = frame.locator("#transcripts").evaluate("e => e.getBoundingClientRect().top")
    assert abs(top) < 50
    tab.close()


def test_runs_of_one_attempt_and_runs_just_begun_are_shown(browser, tmp_path):
    rows = [fake_runs.transcript(i, ("4", i == 0)) for i in range(3)]
    fake_runs.write(tmp_path / "one", transcripts={"base": rows}, stages=("base",))
    opened = Opened(browser, run_page.write(tmp_path / "one"))
    assert opened.tab.locator("#changes").is_hidden()
    opened.choose(outcome="right")
    assert opened.count() == "1 of 3"
    opened.tab.close()
    fake_runs.write(tmp_path / "new", stages=())
    with lock.held(tmp_path / "new"):
        begun = Opened(browser, run_page.write(tmp_path / "new"))
    assert "starting" in begun.text("#status")
    assert "No evaluation yet." in begun.text("#headline")
    assert opened.complaints == begun.complaints == []
    begun.tab.close()


def test_ten_thousand_transcripts_open_and_filter_quickly(browser, tmp_path):
    rows = {"stage2": fake_runs.made_up("stage2", 10_000)}
    path = run_page.write(fake_runs.write(tmp_path, transcripts=rows))
    loads, filters = [], []
    for _ in range(10):  # the best counts: other programs run here too
        if loads and min(loads) < LOAD_SEC and min(filters) < FILTER_MS:
            break
        opened = Opened(browser, path)
        loads.append(opened.tab.evaluate(DRAWN_AT) / 1000)
        assert opened.count() == "10,000 of 10,000"
        assert opened.tab.locator(".option").count() < 60
        filters.append(max(opened.tab.evaluate(FILTERED_IN)))
        opened.tab.close()
    print(f"open {min(loads):.2f} s, slowest filter {min(filters):.0f} ms")
    assert min(loads) < LOAD_SEC
    assert min(filters) < FILTER_MS


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        ("accuracy", "#main-charts figure:nth-child(1) svg"),
        ("kl", "#policy-charts figure:nth-child(1) svg"),
        ("flips", "#flips > div:nth-child(2)"),
        ("time", "#speed .stack >> nth=1"),
        ("transcripts", ".explorer"),
    ],
)
def test_the_main_elements_look_as_they_did(shown, tmp_path, name, selector):
    """Without their text: fonts differ from machine to machine, shapes and places do not."""
    image = pytest.importorskip("PIL.Image")
    element = shown.tab.locator(selector)
    element.evaluate(
        """(element) => {
          // In the corner, so that what is above it on the page does not shift its pixels.
          const width = Math.round(element.getBoundingClientRect().width);
          Object.assign(element.style, { position: "fixed", top: 0, left: 0, width: `${width}px` });
          const sheet = new CSSStyleSheet();
          sheet.replaceSync(`* { -webkit-text-fill-color: transparent !important;
            text-decoration-color: transparent !important; }
            svg text { display: none; } mark, .history { visibility: hidden; }`);
          document.adoptedStyleSheets = [sheet];
        }"""
    )
    picture = image.open(io.BytesIO(element.screenshot())).convert("RGB")
    small = picture.resize(
        (picture.width // SHRINK, picture.height // SHRINK), image.Resampling.BOX
    )
    now = tmp_path / f"{name}.png"
    small.save(now, optimize=True)
    advice = f"If the change is meant, look at {now} and put it into {PICTURES}."
    wanted = image.open(PICTURES / f"{name}.png").convert("RGB")
    assert small.size == wanted.size, advice
    difference = np.abs(np.asarray(small, int) - np.asarray(wanted, int))
    assert difference.max() <= 80 and difference.mean() < 1.5, advice
