"""Which files a GGUF model is in, by their names and first bytes.

    find(path)      -> the GGUF file that a path means, its first part if it is split; or None
    parts(path)     -> the parts of a split model, given the first

A file counts as GGUF by its suffix, in any case, or by its first bytes: the hub's cache keeps files
without a suffix. llama.cpp splits a model into NAME-00001-of-00002.gguf and so on, and the first
part has the metadata of all.

Not handled: files cut into pieces by other tools, which only `cat` joins.
"""

import pathlib
import re

from score_jax.problem import InputError

MAGIC = b"GGUF"
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.I)
_PROJECTOR = "mmproj"  # begins the name of the vision part that is published beside a model


def find(path: pathlib.Path) -> pathlib.Path | None:
    """The GGUF file that a path means: a file, any part of a split one, or a folder with one.

    Raises: InputError if a folder has several, or a part's first part is missing.
    """
    if path.is_dir():
        return _only(path)
    if not path.is_file() or not (path.suffix.lower() == ".gguf" or _begins_as_gguf(path)):
        return None
    first = _part(path, 1)
    if first is not None and not first.is_file():
        raise InputError(
            f"{path} is one part of a split model, and its first part {first.name}, which has the "
            f"metadata, is not in {path.parent}. Put all parts into one folder."
        )
    return first or path


def parts(first: pathlib.Path, count: int = 0) -> list[pathlib.Path]:
    """Where the `count` parts of a model are, which need not exist; 0: as many as its name says.

    Raises: InputError if the first one's name does not say how the others are named.
    """
    match = _PART.fullmatch(first.name)
    count = count or (int(match["count"]) if match else 1)
    if count > 1 and not (match and int(match["count"]) == count):
        raise InputError(
            f"{first} is one of {count} parts, and its name does not say how the others are "
            f"named. Name them as they were published, e.g. model-00001-of-{count:05}.gguf, or "
            "join them: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    return [_part(first, number) or first for number in range(1, count + 1)]


def _only(folder: pathlib.Path) -> pathlib.Path | None:
    files = [p for p in folder.iterdir() if p.suffix.lower() == ".gguf" and p.is_file()]
    models = {find(p) for p in sorted(files) if not p.name.lower().startswith(_PROJECTOR)}
    names = sorted(p.name for p in models if p)
    if len(names) > 1:
        raise InputError(
            f"{folder} holds {len(names)} GGUF models: {', '.join(names[:12])}. Name one of these "
            "files."
        )
    return folder / names[0] if names else None


def _part(path: pathlib.Path, number: int) -> pathlib.Path | None:
    """Where part `number` of the model is that `path` is a part of; None if it is none."""
    match = _PART.fullmatch(path.name)
    if not match:
        return None
    return path.with_name(f"{match['name']}-{number:05}-of-{match['count']}{match['suffix']}")


def _begins_as_gguf(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
