"""A hook of mkdocs: makes a site of pages that are also read in the repository.

Pages link files as they lie in the repository. On the site such a link leads to
- the page of the file, for docs/*.md and for the pages at the root, which are taken in;
- its place in the API reference, for a module: mkdocstrings makes a page for each room;
- a page with its text, for any other file that is linked.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "score_jax"
README = "overview.md"  # as README.md it would be the index of the site
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?\)")
FENCES = {".py": "python", ".sh": "bash", ".cff": "yaml", ".toml": "toml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a page for each room in place of `API: api` of the navigation."""
    for group in config.nav or ():
        for entries in group.values():
            for entry in entries if isinstance(entries, list) else ():
                if entry.get("API") == "api":
                    entry["API"] = ["api/index.md", *(f"api/{room}.md" for room in rooms())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that do not lie in docs/."""
    made = {"api/index.md": _api_index()}
    made |= {f"api/{room}.md": _api_page(room) for room in rooms()}
    pages = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")}
    texts = {f"docs/{f.src_uri}": f.content_string for f in files.documentation_pages()}
    for place, text in {**texts, **pages}.items():
        for target in _linked(text, posixpath.dirname(place)):
            if page_of(target) == f"source/{target}.md":
                made[f"source/{target}.md"] = _source_page(ROOT / target)
    made |= {page_of(name): text for name, text in pages.items()}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to pages."""
    here = page.file.src_uri
    if here.startswith(("api/", "source/")):
        return markdown
    folder = "docs" if (ROOT / "docs" / here).exists() else ""  # of the page in the repository

    def link(found: re.Match) -> str:
        start, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if ":" in target or not (ROOT / path).exists():
            return found[0]
        uri, _, own = page_of(path).partition("#")
        uri = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"{start}{uri}{anchor or (own and f'#{own}')})"

    return LINK.sub(link, markdown)


def page_of(path: str) -> str:
    """The page of the site, with an anchor where needed, of a file named from the root."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(f"{PACKAGE}/") and path.endswith(".py"):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"api/{module.split('.')[1]}.md#{module}"
    if path == "README.md":
        return README
    return path if path.endswith(".md") else f"source/{path}.md"


def rooms() -> list[str]:
    """The folders and single files of the package."""
    found = [p for p in (ROOT / PACKAGE).iterdir() if (p / "__init__.py").exists()]
    found += [p for p in (ROOT / PACKAGE).glob("*.py") if p.name != "__init__.py"]
    return sorted(path.stem for path in found)


def modules(room: str) -> list[str]:
    """Dotted names of a room's modules; a folder's own comes before its files."""
    top = ROOT / PACKAGE / room
    paths = sorted(top.rglob("*.py"), key=lambda p: (p.parent, p.name != "__init__.py", p.name))
    paths = paths or [top.with_suffix(".py")]
    parts = (path.relative_to(ROOT).with_suffix("").parts for path in paths)
    names = [".".join(part).removesuffix(".__init__") for part in parts]
    return [name for name in names if not name.endswith(".__main__")]


def _linked(text: str, folder: str) -> Iterator[str]:
    """The files of the repository that a page links, named from the root."""
    for _, target, _ in LINK.findall(text):
        path = posixpath.normpath(posixpath.join(folder, target))
        if ":" not in target and (ROOT / path).is_file():
            yield path


def _api_index() -> str:
    listed = "\n".join(f"- [{PACKAGE}.{room}]({room}.md)" for room in rooms())
    return (
        "# API\n\nThe Python interface, `import score_jax as sj`, is [From Python](../python.md), "
        "with each function in [score_jax.api](api.md). All rooms of the package:\n\n"
        f"{listed}\n"
    )


def _api_page(room: str) -> str:
    return f"# {PACKAGE}.{room}\n\n" + "\n\n".join(f"::: {name}" for name in modules(room)) + "\n"


def _source_page(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".ipynb":
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        blocks = [
            source if kind == "markdown" else _fenced(source, "python") for kind, source in cells
        ]
        return "\n\n".join(blocks)
    return f"# {name}\n\n{_fenced(text, FENCES.get(path.suffix, 'text'))}"


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
