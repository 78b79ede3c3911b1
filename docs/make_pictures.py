"""Takes the pictures of pages in docs/, in a headless Chromium.

    python docs/make_pictures.py runs/quickstart              docs/run_page.png
    python docs/make_pictures.py runs/quickstart runs/other   also docs/compare_page.png
    python docs/make_pictures.py runs/laptop/score-31 --name=laptop_page

Playwright is in the extra `test`; a chromium must be installed, or named by CHROMIUM=.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from score_jax.problem import InputError
from score_jax.report.compare import page as compare
from score_jax.report.run_page import page as run_page

FOLDER = Path(__file__).parent
WIDTH = 1280  # pixels
COLOURS = 128  # of a picture: enough for lines and texts, and a third of the bytes
# What the pictures leave out, so that they can be read at the width of a page.
RUN, COMPARED = "run_page", "compare_page"
LEFT_OUT = {
    RUN: "#reasons, #groups, #policy-charts, #optimisation, #speed, #settings, nav",
    COMPARED: "#commands, #more-charts, #problems .keys, nav",
}


def take(
    runs: Sequence[str | os.PathLike[str]], folder: Path = FOLDER, name: str = RUN
) -> list[Path]:
    """Writes the pictures and returns their paths.

    Args:
      runs: the first one's page is shown; with two or more, also the page that compares them.
      name: of the picture of the first one.
    """
    with tempfile.TemporaryDirectory() as made, sync_playwright() as started:
        pages = {name: run_page.write(runs[0])}
        if len(runs) > 1:
            pages[COMPARED] = compare.write(runs, Path(made) / "compare.html")
        # Pages are our own; as root Chromium has no sandbox.
        browser = started.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        for picture, page in pages.items():
            tab = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("html[data-ready]")
            # The page's policy refuses another style sheet, not a property of an element.
            tab.evaluate(
                "(out) => document.querySelectorAll(out).forEach((e) => e.style.display = 'none')",
                LEFT_OUT[COMPARED if picture == COMPARED else RUN],
            )
            tab.wait_for_timeout(300)  # charts are drawn again as their width changes
            tab.screenshot(path=folder / f"{picture}.png", full_page=True)
        browser.close()
    paths = [folder / f"{picture}.png" for picture in pages]
    for path in paths:
        Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    return paths


def _chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise InputError(f"no chromium found (looked for {', '.join(names)}). Set CHROMIUM=PATH.")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Takes the pictures of pages in docs/.")
    parser.add_argument("workdir", nargs="+", help="work directory of a finished run")
    parser.add_argument("--name", default=RUN, help="of the picture of the first run's page")
    given = parser.parse_args()
    try:
        print(*take(given.workdir, name=given.name), sep="\n")
    except InputError as error:
        sys.exit(f"score_jax: {error}")
