"""One run at a time in a work directory: the file DIR/lock.json says which.

    with held(folder): …           every process calls it; process 0 holds the lock for all

The file is made only if it is absent, which one of two processes can do, and its time is renewed
while the run lives. It is in nobody's way when its run has ended without removing it:

  1. of this machine: its process is gone (or the machine has started anew since);
  2. of another machine, or of a container that does not see our processes: for WATCH_SEC nobody
     has renewed it. No clocks are compared.

lock_files.py makes and replaces the file, on disk or in a bucket.
"""

import contextlib
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

from score_jax.buckets.client import NoAccess
from score_jax.problem import FULL, InputError, MachineGone
from score_jax.runtime import hosts
from score_jax.workdir import lock_files, spool
from score_jax.workdir.lock_files import NAME, LockFile, Stamp

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
        try:
            taken.append(_take(folder))
        except NoAccess:
            if read_only:
                return False
            raise
        spool.taken(folder)
        return True

    writes, reachable = hosts.lead_says(take), True
    try:
        yield writes
    except Exception as error:
        reachable = spool.is_reachable(error)
        raise
    finally:
        try:
            if taken and reachable:
                spool.let_go(folder)
        finally:
            for lock in taken:
                lock.release()


def is_held(folder: Path) -> bool:
    """Whether a run is at work in the folder, as far as its lock tells from here.

    The process of another machine is believed to live: only watching its lock would tell.
    """
    found = None
    with contextlib.suppress(OSError):
        found = _said(lock_files.of(folder).stamp())
    if not found:
        return False
    return found["machine"] != _machine() or _started(found["process"]) == found["started"]


def _take(folder: Path) -> "_Held":
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock_files.of(folder)
        while True:
            own = _myself()
            if file.make(own):
                return _Held(folder, file, own, made)
            _remove_if_left(file)
    except MachineGone:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"cannot write to the work directory {folder}: {error.strerror or error}. Metrics and "
            "checkpoints are kept there. Pass --workdir=DIR with a writable directory."
        ) from error


class _Held:
    """A lock of this process, renewed by a thread until it is released."""

    def __init__(self, folder: Path, file: LockFile, own: dict[str, Any], made: bool):
        self._folder, self._file, self._own, self._made = folder, file, own, made
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _said(self._file.stamp()) == self._own:
                self._file.remove(self._own)
            if self._made:
                self._folder.rmdir()  # only if nothing else is in it

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SEC):
            with contextlib.suppress(OSError):  # full, or out of reach for a while
                found = _said(self._file.stamp())
                if found not in (None, self._own):
                    self._lost(found)
                self._file.renew(self._own)

    def _lost(self, found: dict[str, Any]) -> None:
        # This process stood still for a minute, and another host took the folder over.
        print(
            f"score_jax: {_of(found)} has taken {self._file.folder} over, as this process did not "
            "renew its lock there. It ends, so that the two do not mix.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(MachineGone.status)


def _remove_if_left(file: LockFile) -> None:
    """Removes a lock that its run left behind. Raises: InputError if the run lives."""
    seen = file.stamp()
    found = _said(seen)
    if found and found["machine"] == _machine():
        if _started(found["process"]) == found["started"]:
            raise _refused(file, found)
    elif seen:
        print(
            f"score_jax: {file.folder}/{NAME} is of {_of(found)}, which may have ended: watching "
            f"it for {WATCH_SEC:.0f} seconds …",
            flush=True,
        )
        deadline = time.monotonic() + WATCH_SEC
        while time.monotonic() < deadline and seen:
            time.sleep(_LOOK_SEC)
            if (now := file.stamp()) and now != seen:
                raise _refused(file, _said(now))
            seen = now
    if not file.remove_left(seen):  # the other one was quicker, and holds a new lock
        raise _refused(file, _said(file.stamp()))


def _refused(file: LockFile, found: dict[str, Any] | None) -> InputError:
    return InputError(
        f"{_of(found)} is at work in {file.folder}, and two runs in one folder would mix their "
        "results. Wait until it has ended, stop it, or name another --workdir."
    )


def _of(found: dict[str, Any] | None) -> str:
    if not found:
        return "another run"
    return f"another run (process {found['process']} on {found['host']}, since {found['since']})"


def _said(stamp: Stamp | None) -> dict[str, Any] | None:
    """What a lock says; None if there is none, or it was written in part."""
    try:
        found: Any = json.loads(stamp[0]) if stamp else None
        return found if found.keys() == _myself().keys() else None
    except (ValueError, AttributeError):
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
