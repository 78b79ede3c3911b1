"""The file of a lock (lock.py): made if it is absent, renewed, replaced only if it has not changed.

    file = of(folder)       on disk; in a bucket if the folder stands for one there

Not handled: storage on which two hosts can both create one file (buckets that are mounted).
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from score_jax import jsonfiles
from score_jax.buckets import places
from score_jax.buckets.client import Changed, Folder

NAME = "lock.json"
_ASK_SEC = 10.0  # a bucket out of reach: whoever renews asks again later

Stamp = tuple[bytes, int]  # content, and what changes whenever the file is renewed or replaced


class LockFile(Protocol):
    """The file in a work directory; all methods may raise OSError."""

    folder: str  # for messages

    def make(self, own: Mapping[str, Any]) -> bool:
        """Makes it with all that it says; False if there is one."""

    def stamp(self) -> Stamp | None:
        """What it is now; None if there is none."""

    def renew(self, own: Mapping[str, Any]) -> None:
        """Shows the others that its run lives."""

    def remove_left(self, seen: Stamp | None) -> bool:
        """Removes one that a run left behind; False if it is no longer the one that was seen."""

    def remove(self, own: Mapping[str, Any]) -> None:
        """Removes one's own."""


def of(folder: Path) -> LockFile:
    """The lock's file of a work directory."""
    url = places.url_of(folder)
    return _InBucket(url) if url else _OnDisk(folder)


class _OnDisk:
    def __init__(self, folder: Path):
        self.folder, self._path = str(folder), folder / NAME

    def make(self, own: Mapping[str, Any]) -> bool:
        part, text = self._path.with_name(f".{NAME}.{own['token']}"), jsonfiles.line(own)
        try:
            part.write_text(text, encoding="ascii")
            os.link(part, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            # Storage without links: for a moment the lock is seen empty, which is no harm.
            try:
                with open(self._path, "x", encoding="ascii") as file:
                    file.write(text)
            except FileExistsError:
                return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def stamp(self) -> Stamp | None:
        try:
            return self._path.read_bytes(), self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def renew(self, own: Mapping[str, Any]) -> None:
        os.utime(self._path)

    def remove_left(self, seen: Stamp | None) -> bool:
        # Several processes may get here. One at a time looks again, so none removes a new lock.
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some shared storage has no locks of this kind
                fcntl.flock(folder, fcntl.LOCK_EX)
            # Where there was none, one that is there by now is new.
            if seen and self.stamp() == seen:
                self._path.unlink(missing_ok=True)
            return not self._path.exists()
        finally:
            os.close(folder)

    def remove(self, own: Mapping[str, Any]) -> None:
        self._path.unlink()


class _InBucket:
    """Its generation changes with every renewal, as it is written again. Empty counts as absent."""

    def __init__(self, url: str):
        self.folder, self._asked, self._renewed = url, Folder(url), Folder(url, _ASK_SEC)
        self._generation = 0  # of our own

    def make(self, own: Mapping[str, Any]) -> bool:
        there = self._asked.read(NAME)
        if there and there[0]:
            return False
        try:
            self._generation = self._asked.upload(NAME, _text(own), there[1] if there else 0)
        except Changed:
            return False
        return True

    def stamp(self) -> Stamp | None:
        there = self._renewed.read(NAME)
        return there if there and there[0] else None

    def renew(self, own: Mapping[str, Any]) -> None:
        # Of another's, the next look finds out.
        with contextlib.suppress(Changed):
            self._generation = self._renewed.upload(NAME, _text(own), self._generation)

    def remove_left(self, seen: Stamp | None) -> bool:
        try:
            if seen:
                self._asked.upload(NAME, b"", seen[1])
        except Changed:
            return False
        return True

    def remove(self, own: Mapping[str, Any]) -> None:
        self._renewed.delete(NAME, self._generation)


def _text(own: Mapping[str, Any]) -> bytes:
    return jsonfiles.line(own).encode()
