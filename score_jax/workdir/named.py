"""Folders as users name them: --workdir, --export_dir, --base_from, and the same from Python."""

import os
from pathlib import Path
from typing import Any

from score_jax.problem import InputError, expanded

LONGEST_PATH = 3500  # bytes; Linux takes 4096, and a run's files lie some folders deeper


def folder(name: Any, said: str) -> Path:
    """The folder of that name, which need not be there, with `~` expanded.

    said: what the user wrote, for messages.
    Raises: InputError if it can be no folder.
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise InputError(f"{said} names no folder. Name one, such as runs/first.")
    try:
        path = expanded(name)
    except InputError as error:
        raise InputError(f"{said.partition('=')[0]}: {error}") from None
    if len(os.fsencode(path.absolute())) > LONGEST_PATH:
        raise InputError(
            f"{said:.60}… has more than {LONGEST_PATH} bytes, which no file system takes. "
            "Shorten it."
        )
    for at in (path, *path.parents):
        if os.path.exists(at) and not os.path.isdir(at):
            raise InputError(f"{said}: {at} is a file, not a folder. Name another folder.")
    return path
