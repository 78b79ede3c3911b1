"""Local folders that stand for folders in buckets.

A run in a bucket works in a local folder, and a model of a bucket is read from one. All code takes
that folder; what must go to the bucket itself (Orbax's checkpoints, the lock) asks here.

    stands_for(folder, url)     from now on, in this process
    url_of(path)                -> "gs://bucket/run/…", or "" of a local path
    at(path)                    -> the path that Orbax reads and writes
    shown(text)                 -> the text with URLs in place of such folders
    checkpoints_in(folder)      -> DIR/checkpoints/STAGE/STEP of all complete ones
    copy(source, target)        a checkpoint, from anywhere to anywhere
    copy_folder(source, target) a local folder's files, which can then be written
    upload(path)                an exported folder, or a page
"""

import shutil
from pathlib import Path

from score_jax.buckets.client import Folder

# Orbax writes it last into a checkpoint, and into each of its parts: a bucket renames no folders.
MARKER = "commit_success.txt"

_urls: dict[str, str] = {}


def stands_for(folder: Path, url: str) -> Path:
    """Makes a local folder stand for one in a bucket; returns the folder."""
    _urls[str(folder.absolute())] = url.rstrip("/")
    return folder


def url_of(path: Path) -> str:
    """The URL that a path stands for; empty: it is a local one."""
    path = path.absolute()
    for folder in (path, *path.parents):
        if url := _urls.get(str(folder)):
            below = path.relative_to(folder).as_posix()
            return url if below == "." else f"{url}/{below}"
    return ""


def at(path: Path) -> Path:
    """Where a path is, for Orbax: in a bucket if it stands for a place there."""
    url = url_of(path)
    if not url:
        return path.absolute()  # Orbax takes no relative path
    from etils import epath  # of Orbax

    return epath.Path(url)


def shown(text: str) -> str:
    """A text for the user, with URLs in place of the local folders that stand for them."""
    for folder in sorted(_urls, key=len, reverse=True):
        text = text.replace(folder, _urls[folder])
    return text


def checkpoints_in(folder: Path) -> list[Path]:
    """The complete checkpoints DIR/STAGE/STEP in DIR/checkpoints."""
    if url := url_of(folder):
        marks = [name.split("/") for name in Folder(url).files() if name.endswith(f"/{MARKER}")]
        return [folder / mark[0] / mark[1] for mark in marks if len(mark) == 3]
    # A step's folder gets its name when it is complete.
    return [path for path in folder.glob("*/*") if path.is_dir()]


def copy(source: Path, target: Path) -> None:
    """Copies a checkpoint, which is complete at the end: its marker comes last.

    target: must not be there if it is local; it is then complete only when the caller renames it.
    """
    from_url, to_url = url_of(source), url_of(target)
    if not from_url and not to_url:
        copy_folder(source, target)
        return
    if from_url:
        names = list(Folder(from_url).files())
    else:
        names = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
    for name in sorted(names, key=lambda name: name == MARKER):
        if not to_url:
            Folder(from_url).download(name, target / name)
        elif from_url:
            Folder(from_url).copy(name, Folder(to_url), name)
        elif name != MARKER:
            Folder(to_url).upload(name, source / name)
    if to_url and not from_url:  # made by an Orbax that marks none in local folders
        parts = sorted({name.split("/")[0] for name in names if "/" in name})
        for name in (*(f"{part}/{MARKER}" for part in parts), MARKER):
            Folder(to_url).upload(name, f"Copied from {source}.".encode())


def copy_folder(source: Path, target: Path) -> None:
    """Copies the files of a local folder, over those of a copy that was not completed.

    Modes are not copied: a folder of a run that is read-only could not be written, nor renamed.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            copy_folder(path, target / path.name)
        else:
            (target / path.name).unlink(missing_ok=True)
            shutil.copyfile(path, target / path.name)


def upload(folder: Path) -> None:
    """Writes a folder or file into the bucket if it stands for a place there; config.json last.

    What else is there stays.
    """
    if (url := url_of(folder)) and folder.is_file():
        Folder(url.rpartition("/")[0]).upload(folder.name, folder)
    elif url:
        found = [
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        ]
        for name in sorted(found, key=lambda name: name == "config.json"):
            Folder(url).upload(name, folder / name)


def set_aside(path: Path, aside: Path) -> None:
    """Renames a checkpoint, which is none from its beginning on; what was at `aside` goes."""
    url = url_of(path)
    if not url:
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        return
    here, there = Folder(url), Folder(url_of(aside))
    for name in there.files():
        there.delete(name)
    for name in sorted(here.files(), key=lambda name: name != MARKER):  # the marker first
        here.copy(name, there, name)
        here.delete(name)
