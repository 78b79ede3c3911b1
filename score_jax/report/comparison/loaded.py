"""The table of what published weights do before any training, from runs of --mode=evaluate."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax.problem import InputError

BASE = "base"
HEADING = "### Before any training"
# (part of the file's name, problem set) -> greedy pass@1 in per cent that others published of the
# full weights, and where.
PUBLISHED = {
    ("qwen2.5-coder-0.5b-instruct", "humaneval"): "61.6, Qwen2.5-Coder technical report",
    ("qwen2.5-coder-0.5b-instruct", "mbpp"): "52.4 of EvalPlus's 378 tasks, another set",
}
COLUMNS = {
    "accuracy_attempt1": "Acc@t1",
    "accuracy_attempt2": "Acc@t2",
    "delta": "Δ",
    "changed": "changed",
    "lenient_attempt1": "Acc@t1, lenient",
    "unreadable_attempt1": "unreadable",
    "truncated_attempt1": "truncated",
}


def part(folders: Sequence[str | Path]) -> str:
    """A markdown section with a row for each evaluated set of each work directory.

    Raises: InputError for a folder without an evaluation of `base`.
    """
    rows = [row for folder in folders for row in _rows(Path(folder))]
    heads = ["weights", "problems", "n", *COLUMNS.values(), "published Acc@t1"]
    lines = ["| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows]]
    return "\n".join(
        [
            HEADING,
            "",
            "`--mode=evaluate` on loaded weights, greedy, per cent with 95 % intervals. Lenient: "
            "the right answer stands in the text, though in another form. Unreadable and "
            "truncated: shares of first attempts. The heads of the configs have the commands.",
            "",
            *lines,
        ]
    )


def _rows(folder: Path) -> Iterator[list[str]]:
    try:
        settings = json.loads((folder / "config.json").read_text())["settings"]
        files = sorted((folder / "evaluations").glob(f"{BASE}*.json"))
        found = {path.stem.partition(".")[2]: json.loads(path.read_text()) for path in files}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} is not a work directory of --mode=evaluate: {error}") from error
    if not found:
        raise InputError(
            f"{folder} has no evaluations/{BASE}.json: --mode=evaluate writes it for weights that "
            "no stage of the recipe has trained."
        )
    source = Path(settings["model"]["source"]).name
    problems = settings["problems"]
    for test, metrics in sorted(found.items()):
        name = test or problems["test"]["name"] or problems["name"]
        cells = [_cell(metrics, key) for key in COLUMNS]
        yield [f"`{source}`", name, str(metrics["n"]), *cells, _published(source, name)]


def _cell(metrics: Mapping[str, Any], key: str) -> str:
    """Value and interval in per cent."""
    if key not in metrics:
        return "–"
    sign = "+" if key == "delta" else ""
    low, high = (f"{100 * end:{sign}.1f}" for end in metrics["interval"][key])
    return f"{100 * metrics[key]:{sign}.1f} [{low}, {high}]"


def _published(source: str, test: str) -> str:
    found = [
        said for (part, of), said in PUBLISHED.items() if part in source.lower() and of == test
    ]
    return found[0] if found else "–"
