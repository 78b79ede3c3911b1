"""The page as a file: whole, self-contained, and closed to what a model may have written."""

import base64
import hashlib
import html.parser
import json
import re
import subprocess
import sys

from score_jax.report.run_page import contents, page
from tests.report.run_page import fake_runs

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]> </style> {{script}} &amp; \\u003c",
    "\ud800 lone \udfff",
    "\u2028\u2029\x00\x1b[31m",
    "\u202eright to left \u0645\u0631\u062d\u0628\u0627",
    "x" * 1_000_000,
]


class Parsed(html.parser.HTMLParser):
    """Elements in order, and the text of styles and scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self._inside = -1
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = len(self.tags) - 1 if tag in ("script", "style") else -1

    def handle_endtag(self, tag):
        self._inside = -1

    def handle_data(self, data):
        if self._inside >= 0:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data


def rendered(tmp_path, texts=HOSTILE) -> str:
    rows = [fake_runs.transcript(i, (text, False), (text, True)) for i, text in enumerate(texts)]
    rows[0] |= {"id": texts[0], "problem": texts[0], "gold": texts[0], "tags": {texts[0]: texts[0]}}
    fake_runs.write(tmp_path, transcripts={"base": rows}, stages=("base",))
    return page.write(tmp_path).read_text(encoding="utf-8")


def embedded_data(parsed: Parsed):
    (number,) = (i for i, (_, attrs) in enumerate(parsed.tags) if attrs.get("id") == "data")
    return json.loads(parsed.texts[number])


def test_the_page_holds_what_contents_read(tmp_path):
    data = contents.of(fake_runs.write(tmp_path))
    parsed = Parsed(page.render(data))
    assert embedded_data(parsed) == data


def test_hostile_text_cannot_leave_its_element_and_comes_back_unchanged(tmp_path):
    parsed = Parsed(rendered(tmp_path))
    assert [tag for tag, _ in parsed.tags].count("script") == 2  # the data and ours
    assert "img" not in [tag for tag, _ in parsed.tags]
    rows = embedded_data(parsed)["transcripts"]["evaluations"][0]["rows"]
    assert [row[2][0] for row in rows] == HOSTILE


def test_embedded_json_has_no_character_of_markup():
    text = page.embedded({"<&>": "</script><!-- ü \ud800"})
    assert not set(text) & set("<>&") and text.isascii()
    assert json.loads(text) == {"<&>": "</script><!-- ü \ud800"}


def test_the_policy_allows_our_style_and_script_and_nothing_else(tmp_path):
    parsed = Parsed(rendered(tmp_path))
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    for i, (tag, attrs) in enumerate(parsed.tags):
        if tag in ("style", "script") and "type" not in attrs:
            digest = base64.b64encode(hashlib.sha256(parsed.texts[i].encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy


def test_nothing_is_loaded_and_nothing_is_parsed_as_markup(tmp_path):
    text = rendered(tmp_path, ["plain"])
    assert not [a for _, a in Parsed(text).tags if {"src", "srcset", "action"} & a.keys()]
    for code in map(page.source, page.SCRIPTS):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", code)
        assert "</script" not in code


def test_a_run_with_an_odd_name_is_escaped_in_the_title(tmp_path):
    folder = tmp_path / "a<b>&{{data}}"
    text = page.write(fake_runs.write(folder)).read_text(encoding="utf-8")
    assert "<title>a&lt;b&gt;&amp;{{data}} · score_jax</title>" in text


def test_writing_leaves_no_half_of_a_page_behind(tmp_path):
    page.write(fake_runs.write(tmp_path))
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]


def test_the_command_writes_pages_and_names_a_folder_without_a_run(tmp_path):
    fake_runs.write(tmp_path / "run")
    folders = [tmp_path / "run", tmp_path / "nowhere"]
    command = [sys.executable, "-m", "score_jax.report.run_page", *folders]
    done = subprocess.run(command, capture_output=True, text=True)
    report = tmp_path / "run" / "report"
    written = ("index.html", "accuracy.png", "policy.png")
    assert done.stdout.split() == [str(report / name) for name in written]
    assert all((report / name).exists() for name in written)
    assert done.returncode == 2 and done.stderr.startswith("score_jax: ")
    assert "Name the work directory" in done.stderr and "Traceback" not in done.stderr
