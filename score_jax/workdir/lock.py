"""One run at a time in a work directory: the file DIR/lock.json says which.

    with held(folder): …           every process calls it; process 0 holds the lock for all

The file is made only if it is absent, which one of two processes can do, and its time is renewed
while the run lives. It is in nobody's way when its run has ended without removing it:

  1. of this machine: its process is gone (or the machine has started anew since);
  2. of another machine, or of a container that does not see our processes: for WATCH_SEC nobody
     has renewed it. No clocks are compared.

Not handled: storage on which two hosts can both create one file (buckets without preconditions).
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.problem import FULL, InputError, MachineGone
from score_jax.runtime import hosts

NAME = "lock.json"
RENEW_SEC = 10.0
WATCH_SEC = 60.0  # shared storage may show other hosts an old time for half a minute
_LOOK_SEC = 1.0


@contextlib.contextmanager
def held(folder: Path, *, read_only: bool = False) -> Iterator[bool]:
    """Holds the folder's lock, and makes the folder; one that stays empty is removed again.

    Args:
      read_only: whether a folder that is there and cannot be written will do.
    Yields: whether the folder can be written; if not, nothing is locked.
    Raises: InputError on every process if another run holds the lock, or the folder cannot be
      written.
    """
    taken: list[_Held] = []

    def take() -> bool:
        if read_only and folder.is_dir() and not os.access(folder, os.W_OK):
            return False
        taken.append(_take(folder))
        return True

    writes = hosts.lead_says(take)
    try:
        yield writes
    finally:
        for lock in taken:
            lock.release()


def is_held(folder: Path) -> bool:
    """Whether a run is at work in the folder, as far as its lock tells from here.

    The process of another machine is believed to live: only watching its lock would tell.
    """
    found = _read(folder / NAME)
    if not found:
        return False
    return found["machine"] != _machine() or _started(found["process"]) == found["started"]


def _take(folder: Path) -> "_Held":
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            own = _myself()
            with contextlib.suppress(FileExistsError):
                _create(folder / NAME, own)
                return _Held(folder, own, made)
            _remove_if_left(folder / NAME)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"cannot write to the work directory {folder}: {error.strerror or error}. Metrics and "
            "checkpoints are kept there. Pass --workdir=DIR with a writable directory."
        ) from error


def _create(path: Path, own: dict[str, Any]) -> None:
    """Makes the lock with all that it says, so that nobody sees half of it.

    Raises: FileExistsError if there is one.
    """
    part, text = path.with_name(f".{NAME}.{own['token']}"), jsonfiles.line(own)
    try:
        part.write_text(text, encoding="ascii")
        os.link(part, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # Storage without links: for a moment the lock is seen empty, which is no harm.
        with open(path, "x", encoding="ascii") as file:
            file.write(text)
    finally:
        part.unlink(missing_ok=True)


class _Held:
    """A lock of this process, renewed by a thread until it is released."""

    def __init__(self, folder: Path, own: dict[str, Any], made: bool):
        self._folder, self._own, self._made = folder, own, made
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _read(self._folder / NAME) == self._own:
                (self._folder / NAME).unlink()
            if self._made:
                self._folder.rmdir()  # only if nothing else is in it

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SEC):
            with contextlib.suppress(OSError):  # full, or out of reach for a while
                found = _read(self._folder / NAME)
                if found not in (None, self._own):
                    self._lost(found)
                os.utime(self._folder / NAME)

    def _lost(self, found: dict[str, Any]) -> None:
        # This process stood still for a minute, and another host took the folder over.
        print(
            f"score_jax: {_of(found)} has taken {self._folder} over, as this process did not "
            "renew its lock there. It ends, so that the two do not mix.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(MachineGone.status)


def _remove_if_left(path: Path) -> None:
    """Removes a lock that its run left behind. Raises: InputError if the run lives."""
    seen = _stamp(path)
    found = _said(seen[0]) if seen else None
    if found and found["machine"] == _machine():
        if _started(found["process"]) == found["started"]:
            raise _refused(path, found)
    elif seen:
        print(
            f"score_jax: {path} is of {_of(found)}, which may have ended: watching it for "
            f"{WATCH_SEC:.0f} seconds …",
            flush=True,
        )
        deadline = time.monotonic() + WATCH_SEC
        while time.monotonic() < deadline and seen:
            time.sleep(_LOOK_SEC)
            if (now := _stamp(path)) and now != seen:
                raise _refused(path, _read(path))
            seen = now
    # Several processes may get here. One at a time looks again, so none removes a new lock.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some shared storage has no locks of this kind
            fcntl.flock(folder, fcntl.LOCK_EX)
        if _stamp(path) == seen:
            path.unlink(missing_ok=True)
        elif path.exists():  # the other one was quicker, and holds a new lock
            raise _refused(path, _read(path))
    finally:
        os.close(folder)


def _refused(path: Path, found: dict[str, Any] | None) -> InputError:
    return InputError(
        f"{_of(found)} is at work in {path.parent}, and two runs in one folder would mix their "
        "results. Wait until it has ended, stop it, or name another --workdir."
    )


def _of(found: dict[str, Any] | None) -> str:
    if not found:
        return "another run"
    return f"another run (process {found['process']} on {found['host']}, since {found['since']})"


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; None if there is none."""
    try:
        return _said(path.read_bytes())
    except OSError:
        return None


def _said(content: bytes) -> dict[str, Any] | None:
    """What a lock with this content says; None if it is none, or was written in part."""
    try:
        found = json.loads(content)
        return found if found.keys() == _myself().keys() else None
    except (ValueError, AttributeError):
        return None


def _stamp(path: Path) -> tuple[bytes, int] | None:
    """Changes whenever a lock is renewed or replaced; None if there is none."""
    try:
        return path.read_bytes(), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "machine": _machine(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "token": secrets.token_hex(8),
    }


def _machine() -> str:
    """Equal where process numbers mean the same: until a restart, and within a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # macOS
        return socket.gethostname()


def _started(process: int) -> str:
    """When a process started, which tells it from a later one of its number; empty: it is gone."""
    if sys.platform == "linux":
        try:
            # The second field, a name in brackets, may hold blanks: proc(5).
            state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else fields[18]
    command = ["ps", "-o", "lstart=", "-p", str(process)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
