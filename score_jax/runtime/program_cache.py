"""jax's cache of compiled programs, with files that are complete or absent.

jax writes a program straight into its file and never replaces one that is there. So half a file,
left by a kill or a full disk, would stay: every start would warn of it and compile again. Here a
file is renamed into place when it is complete, and one that is damaged counts as absent.
"""

import contextlib
import os
from pathlib import Path

from jax._src import compilation_cache  # the only way to the cache's reads and writes
from jax._src.lru_cache import LRUCache


class WholeFiles(LRUCache):
    """Programs in a folder, shared by all processes that run there."""

    def get(self, key: str) -> bytes | None:
        """A program; None if there is none, or only a part of one, which is removed."""
        value = super().get(key)
        if value is not None and not _is_whole(value):
            with contextlib.suppress(OSError):
                self._file(key).unlink()
            return None
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, where there is room for it."""
        path = self._file(key)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(value)
            os.replace(part, path)
        except OSError:  # full, or read-only: the program is compiled again next time
            with contextlib.suppress(OSError):
                part.unlink()

    def _file(self, key: str) -> Path:
        return Path(self.path) / f"{key}-cache"


def install() -> None:
    """Makes jax keep programs so; call it whenever the setting of the folder has changed."""
    compilation_cache.get_file_cache = _opened
    compilation_cache.reset_cache()  # jax reads the folder's name only once


def _opened(path: str) -> tuple[WholeFiles, str] | None:
    try:
        return WholeFiles(path, max_size=-1), path
    except OSError:  # it is not there and cannot be made
        return None


def _is_whole(value: bytes) -> bool:
    try:
        compilation_cache.decompress_executable(value)
    except Exception:  # of zstandard or zlib, whichever is installed
        return False
    return True
