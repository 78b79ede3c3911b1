"""The files of a run's evaluations: which are there, and which cannot be read.

    set_aside_damaged(folder)       renames those that cannot be read; they count as missing
    set_aside(folder)               evaluations that were renamed and not made again

What is missing is made again from the checkpoint that it was made of, if that is there.
"""

from pathlib import Path
from typing import Any

from score_jax import jsonfiles


def read(path: Path) -> dict[str, Any] | None:
    """An evaluation; None if its file is not there, or cannot be read."""
    return jsonfiles.read(path) if path.exists() and not _fault(path) else None


def set_aside_damaged(folder: Path) -> list[str]:
    """Renames files that cannot be read. Returns: what to say, a line for each."""
    found = {path: _fault(path) for path in sorted((folder / "evaluations").glob("[!.]*.json"))}
    return [jsonfiles.set_aside(path, why) for path, why in found.items() if why]


def set_aside(folder: Path) -> list[tuple[str, int]]:
    """Stage and step of evaluations within a stage that were set aside and not made again."""
    found = set()
    for path in (folder / "evaluations").glob("*-*.json.damaged"):
        stage, _, step = path.name.split(".")[0].rpartition("-")
        if step.isdigit() and not path.with_suffix("").exists():
            found.add((stage, int(step)))
    return sorted(found)


def _fault(path: Path) -> str:
    """Why a file is no evaluation; empty: it is one."""
    try:
        found = jsonfiles.read(path)
        found["n"], found["interval"]
    except (ValueError, KeyError, TypeError, IsADirectoryError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
