"""Models and problems in buckets, fetched into the user's cache.

    local(source, …)   -> the local path of a file or folder; a source that is no URL as it is

What is in the cache is fetched again only if it has changed. Of a run of ours the settings are
fetched alone: its checkpoints are read where they are (places.py).
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from score_jax import jsonfiles
from score_jax.buckets import places
from score_jax.buckets.client import Folder, is_url
from score_jax.problem import InputError

WEIGHTS = (".safetensors", ".gguf")
_BESIDE_WEIGHTS = (".json", ".jinja", ".md", ".model", ".txt")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_CHECKPOINTS = "checkpoints"


def local(source: str) -> str:
    """The local copy of a file, or of a folder with all that is in it. Raises: InputError."""
    if not is_url(source):
        return source
    folder, name, found = _found(source)
    if name:
        return str(_fetched(folder, {name: found[name]}, found) / name)
    return str(_fetched(folder, folder.files()))


def model(source: str, weights: bool = True) -> str:
    """The local copy of a model's folder, GGUF file or tokenizer; of a run, what stands for it.

    weights: False leaves out tensors, where the small files say what the model is.
    Raises: InputError.
    """
    if not is_url(source):
        return source
    run, _, below = source.rstrip("/").partition(f"/{_CHECKPOINTS}")
    if not below or below.startswith("/"):
        files, folders = Folder(run).entries()
        if "config.json" in files and _CHECKPOINTS in folders:
            path = _fetched(Folder(run), {"config.json": files["config.json"]})
            named = source.rstrip("/").removeprefix(run)
            (path / named.lstrip("/")).mkdir(parents=True, exist_ok=True)
            return f"{path}{named}"
    folder, name, found = _found(source)
    if name:
        stem = _PART.sub("", name)  # of a GGUF in parts all are fetched
        parts = {n: g for n, g in found.items() if n == name or stem == _PART.sub("", n)}
        return str(_fetched(folder, parts, found) / name)
    described = "config.json" in found
    kinds = (*_BESIDE_WEIGHTS, *(WEIGHTS if weights or not described else ()))
    wanted = {n: g for n, g in found.items() if n.endswith(kinds)}
    return str(_fetched(folder, wanted, found))


def _found(source: str) -> tuple[Folder, str, Mapping[str, int]]:
    """A folder and the files directly in it; with the name of one if the source is a file."""
    found, folders = (folder := Folder(source)).entries()
    parent, _, name = source.rstrip("/").rpartition("/")
    if not found and not folders and not parent.endswith("/"):
        found, _ = (folder := Folder(parent)).entries()
        if name in found:
            return folder, name, found
        found = {}
    if not found and not folders:
        raise InputError(f"{source}: no such file or folder. Correct the name.")
    return folder, "", found


def cache() -> Path:
    """The user's folder for what has been fetched."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "score_jax"


def _fetched(
    folder: Folder, wanted: Mapping[str, int], there: Mapping[str, int] | None = None
) -> Path:
    """The local folder with these files as they are now.

    there: all that the bucket has; what has gone there goes here.
    """
    at = cache() / "buckets" / hashlib.sha256(folder.url.encode()).hexdigest()[:16]
    path, generations = at / folder.url.rpartition("/")[2], at / "generations.json"
    path.mkdir(parents=True, exist_ok=True)
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        known = jsonfiles.read(generations)
    for name in known.keys() - (wanted if there is None else there).keys():
        (path / name).unlink(missing_ok=True)
    known = {name: known[name] for name in known if (path / name).exists()}
    missing = [name for name, generation in wanted.items() if known.get(name) != generation]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: folder.download(name, path / name), missing))
    jsonfiles.write(generations, known | {name: wanted[name] for name in wanted})
    return places.stands_for(path, folder.url)
