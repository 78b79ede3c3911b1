"""The page that lays runs side by side: one file that opens from disk, as the run page does.

It joins assets/ and some of run_page's assets with the data from contents.py, and is as closed to
what a model wrote as the run page (run_page/page.py).
"""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.report.compare import contents
from score_jax.report.run_page import page as run_page

SHARED = ("elements.js", "attempts.js", "diff.js", "charts.js", "groups.js", "list.js", "detail.js")
SCRIPTS = ("results.js", "curves.js", "problems.js", "compare.js")  # the last one starts the page


def write(workdirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Writes the file `out` and returns its path.

    Raises: InputError as contents.of does, or if `out` is a folder.
    """
    path = Path(out)
    if path.is_dir():
        raise InputError(f"--out={out} is a folder. Name a file, such as {path / 'compare.html'}.")
    data = contents.of(workdirs)
    for run in data["runs"]:
        own = Path(run["folder"]) / "report" / "index.html"  # of one in a bucket none
        run["page"] = Path(os.path.relpath(own, path.parent)).as_posix() if own.exists() else None
    jsonfiles.write_text(path, render(data))
    return path


def render(data: dict) -> str:
    """The page that shows `data`, which has the form that contents.of returns."""
    return run_page.joined(
        source("compare.html"),
        style=run_page.source("page.css") + source("compare.css"),
        script="\n".join([*map(run_page.source, SHARED), *map(source, SCRIPTS)]),
        title=f"{data['name']} · compared",
        data=data,
    )


def source(name: str) -> str:
    """The text of a file in assets/."""
    assets = resources.files("score_jax.report.compare") / "assets"
    return (assets / name).read_text(encoding="utf-8")
