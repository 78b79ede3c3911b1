"""Folders as users name them: --workdir, --export_dir, --base_from, and the same from Python."""

import os
from pathlib import Path
from typing import Any

from score_jax.problem import InputError, expanded

LONGEST_NAME = 255  # bytes, of a name on any usual file system
LONGEST_PATH = 3500  # bytes; Linux takes 4096, and a run's files lie some folders deeper


def folder(name: Any, said: str) -> Path:
    """The folder of that name, which need not be there, with `~` expanded.

    said: what the user wrote, for messages.
    Raises: InputError if it can be no folder.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise InputError(f"{said} names no folder. Name one, such as runs/first.")
    path = expanded(name)
    long = [part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME]
    if long or len(os.fsencode(path.absolute())) > LONGEST_PATH:
        limit = f"a name of more than {LONGEST_NAME}" if long else f"more than {LONGEST_PATH}"
        raise InputError(f"{said:.60}… has {limit} bytes, which no file system takes. Shorten it.")
    for at in (path, *path.parents):
        if os.path.exists(at) and not os.path.isdir(at):
            raise InputError(f"{said}: {at} is a file, not a folder. Name another folder.")
    return path
