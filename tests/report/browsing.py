"""Pages in a headless Chromium.

Tests of them are skipped where Python's playwright or a chromium is missing (Debian: `apt-get
install chromium`), unless PAGE_TESTS=required, which .ci/run sets where there is a chromium.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def refuse_to_skip() -> None:
    """Fails where .ci/run has found or installed a Chromium, so that nothing may be skipped."""
    if os.environ.get("PAGE_TESTS") == "required":
        pytest.fail("PAGE_TESTS=required, but chromium or Python's playwright is missing")


@contextlib.contextmanager
def chromium() -> Iterator:
    """A browser of playwright, or a skip that says what is missing."""
    if importlib.util.find_spec("playwright") is None:
        refuse_to_skip()
        pytest.skip("the browser tests need Python's playwright")
    from playwright import sync_api

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        refuse_to_skip()
        pytest.skip(f"no chromium found (looked for {', '.join(NAMES)})")
    with sync_api.sync_playwright() as started:
        # Pages come from disk and are our own; as root Chromium has no sandbox.
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page in a tab, with everything it complained about or asked for."""

    def __init__(self, browser, path: Path, **context):
        self.tab = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | context)
        self.tab.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.source = path.read_text(encoding="utf-8")
        self.tab.goto(self.url)
        self.tab.wait_for_selector("html[data-ready]")

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).inner_text()

    def count(self) -> str:
        return self.text("#count").split(" transcripts")[0]

    def choose(self, **filters: str) -> None:
        for name, label in filters.items():
            self.tab.locator(f"select[name='{name.replace('tag_', 'tag:')}']").select_option(label)

    def is_wider_than_its_window(self) -> bool:
        return self.tab.evaluate("document.documentElement.scrollWidth > innerWidth")
