"""docs/ as a site: it builds without a warning, and loads nothing from another host."""

import functools
import html.parser
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.docs_test import PAGES, text_of
from tests.report import browsing
from tests.report.run_page import fake_runs

ROOT = Path(__file__).resolve().parents[1]
LOADING = {  # what a browser fetches by itself: element -> attribute
    "script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src",
}  # fmt: skip
TUTORIAL = ("Problems", "Reward", "Prompt and settings", "Run it", "Read the page", "A full run")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """docs/site_hook.py, the hook."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site_hook.py")
    assert spec and spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The site, built as CONTRIBUTING.md says; a warning is an error."""
    pytest.importorskip("mkdocs", reason="mkdocs is missing: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Elements(html.parser.HTMLParser):
    """(tag, attributes) of all elements."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_files_lead_to_pages(site):
    for path, page in {
        "docs/method.md": "method.md",
        "README.md": "overview.md",
        "CHANGELOG.md": "CHANGELOG.md",
        "score_jax/rl/shaping.py": "api/rl.md#score_jax.rl.shaping",
        "score_jax/grading.py": "api/grading.md#score_jax.grading",
        "score_jax/learner/loss/__init__.py": "api/learner.md#score_jax.learner.loss",
        "examples/score_loop.py": "source/examples/score_loop.py.md",
    }.items():
        assert site.page_of(path) == page


def test_every_module_is_in_the_reference_once(site):
    listed = [name for room in site.rooms() for name in site.modules(room)]
    paths = [p for p in (ROOT / "score_jax").rglob("*.py") if p.stem != "__main__"]
    named = (".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths)
    assert sorted(listed) == sorted(
        {name.removesuffix(".__init__") for name in named} - {"score_jax"}
    )


def test_every_page_is_in_the_navigation():
    navigation = text_of(ROOT / "mkdocs.yml").partition("\nnav:\n")[2]
    named = re.findall(r": ([\w/]+\.md)", navigation)
    wanted = {page.name.replace("README", "overview") for page in PAGES} | {"RESULTS.md"}
    assert sorted(named) == sorted(wanted)


def test_the_tutorial_goes_from_rows_to_a_server():
    heads = re.findall(r"^## (.*)$", text_of(ROOT / "docs" / "own_task.md"), re.MULTILINE)
    assert heads == [*TUTORIAL, "Export and serve", "With a published model"]


def test_pictures_of_the_pages_are_taken_by_one_command(tmp_path):
    with browsing.chromium():
        pass  # or the test is skipped
    runs = [fake_runs.write(tmp_path / name, problems=5) for name in ("one", "two")]
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "make_pictures.py")
    assert spec and spec.loader
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    taken = pictures.take(runs, tmp_path)
    assert [path.name for path in taken] == ["run_page.png", "compare_page.png"]
    for path in taken:
        with Image.open(path) as picture:
            assert picture.width == 1280 and picture.height > 900
            assert len(picture.getcolors()) > 20  # drawn, and not blank


@pytest.mark.slow
def test_the_site_builds_and_links_of_files_lead_into_the_reference(built):
    pages = {path.relative_to(built).as_posix() for path in built.rglob("*.html")}
    assert {f"{name}/index.html" for name in ("own_task", "recipes", "method", "api/rl")} <= pages
    links = [a.get("href") for tag, a in Elements(built / "method/index.html").found if tag == "a"]
    assert "../api/rl/#score_jax.rl.shaping" in links
    ids = {attrs.get("id") for _, attrs in Elements(built / "api/rl/index.html").found}
    assert {"score_jax.rl.shaping", "score_jax.rl.shaping.shape"} <= ids
    code = (built / "source/examples/score_loop.py/index.html").read_text(encoding="utf-8")
    assert "def main" in re.sub(r"<[^>]*>", "", code)
    assert not (built / "make_settings.py").exists()


@pytest.mark.slow
def test_no_page_names_another_host_for_what_a_browser_fetches(built):
    fetched = [
        (path.name, attrs[LOADING[tag]])
        for path in built.rglob("*.html")
        for tag, attrs in Elements(path).found
        if attrs.get(LOADING.get(tag, ""))
    ]
    assert len(fetched) > 100
    assert not [one for one in fetched if re.match(r"(https?:)?//", one[1])]
    styles = [path.read_text(encoding="utf-8") for path in built.rglob("*.css")]
    assert styles and not [
        s for s in styles if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", s)
    ]


@pytest.fixture(scope="module")
def address(built) -> Iterator[str]:
    """The site on a server of this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(built))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.slow
def test_a_browser_asks_no_other_host_and_finds_words(address):
    asked: list[str] = []
    with browsing.chromium() as browser:
        tab = browser.new_page()
        tab.set_default_timeout(30_000)
        tab.on("request", lambda request: asked.append(request.url))
        for page in ("", "method/", "own_task/", "api/rl/"):
            tab.goto(address + page)
            tab.wait_for_load_state("networkidle")
        tab.locator(".md-search__input").first.fill("preemption")
        tab.locator(".md-search-result__item").first.wait_for()
        assert "Preemption" in tab.locator(".md-search-result__item").first.inner_text()
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
