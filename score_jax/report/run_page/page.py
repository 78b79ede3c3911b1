"""The run page: report/index.html, one file that opens from disk, without a server or a network.

The page joins the sources in assets/ (HTML, CSS, plain JavaScript) with the data from contents.py.
It is written at evaluations, so that a running job can be watched.

What a model wrote is hostile. It is put into the page as JSON in which no character can end the
script element around it, and assets/*.js show it only as text. The content security policy names
the style and the script by their hashes, so that the browser would refuse anything else.
"""

import base64
import hashlib
import html
import json
import os
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.report.run_page import contents

# page.js starts the page, so it comes last; the others only define names.
SCRIPTS = (
    "elements.js",
    "attempts.js",
    "diff.js",
    "charts.js",
    "overview.js",
    "groups.js",
    "reasons.js",
    "curves.js",
    "changes.js",
    "speed.js",
    "settings.js",
    "shading.js",
    "filters.js",
    "list.js",
    "detail.js",
    "transcripts.js",
    "page.js",
)


def write(workdir: str | os.PathLike[str]) -> Path:
    """Writes report/index.html from the work directory's files, and returns its path.

    Raises: InputError as contents.of does.
    """
    path = Path(workdir) / "report" / "index.html"
    jsonfiles.write_text(
        path, render(contents.of(workdir))
    )  # whole: a reader may have the page open
    return path


def renew(workdir: str | os.PathLike[str]) -> None:
    """Writes the page once the run has let go of the folder, with the state it left.

    Does nothing where no run has begun; an error is printed, as the results are written already.
    """
    if (Path(workdir) / "config.json").exists():
        try:
            write(workdir)
        except Exception as error:
            print(f"The run page could not be written: {error}", file=sys.stderr)


def render(data: dict[str, Any]) -> str:
    """The page that shows `data`, which has the form that contents.of returns."""
    return joined(
        source("page.html"),
        style=source("page.css"),
        script="\n".join(map(source, SCRIPTS)),
        title=f"{data['name']} · score_jax",
        data=data,
    )


def joined(body: str, *, style: str, script: str, title: str, data: dict[str, Any]) -> str:
    """A page of one file: frame.html with all in its places, and the policy that fits it."""
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=False),
        "body": body,
        "style": style,
        "script": script,
        "data": embedded(data),
    }
    # In one pass: the inserted texts may hold braces too.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], source("frame.html"))


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element: in ASCII, and without < > &."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def source(name: str) -> str:
    """The text of a file in assets/."""
    assets = resources.files("score_jax.report.run_page") / "assets"
    return (assets / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
