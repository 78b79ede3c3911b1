"""Storage of a run that is full or out of reach: what is said, in place of a traceback.

Writes fail in many places (metrics, checkpoints in the background, transcripts), and libraries wrap
the error in their own or in a text. So it is recognised once, where it ends the run. What a run had
written stays whole: files are renamed into place when they are complete.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from score_jax.buckets import places
from score_jax.buckets.client import is_away
from score_jax.problem import FULL, MachineGone

# Orbax's writer reports an error of the system as a text.
_FULL_TEXTS = tuple(os.strerror(number) for number in FULL - {errno.EFBIG})
_TOO_LARGE = f"{os.strerror(errno.EFBIG)} [os_error_code"  # its words alone may be of an input
# A mount that is gone, or has become read-only after errors of its disk.
_AWAY = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EREMOTEIO, errno.EROFS, errno.ENODEV}


def lost(error: BaseException, folder: Path) -> MachineGone | None:
    """The error for the user, if `error` comes of storage that failed; else None.

    folder: the work directory; named if the error does not name another place.
    """
    for cause in _causes(error):
        if isinstance(cause, MachineGone):
            return cause
        url = places.url_of(folder)
        if url and is_away(cause):
            return MachineGone(
                f"{url} could not be reached ({' '.join(str(cause).split())[:200]}). What is there "
                "is whole."
            )
        where = _folder_of(cause, folder)
        number = cause.errno if isinstance(cause, OSError) else None
        if number == errno.EFBIG or _TOO_LARGE in str(cause):
            return MachineGone(
                f"a file in {where} may not grow: it has reached the largest size that is allowed. "
                "What is written there is whole. Raise the limit (ulimit -f)."
            )
        if number in FULL or any(text in str(cause) for text in _FULL_TEXTS):
            return MachineGone(
                f"no space is left in {where}{_room(where)}. What is written there is whole. Free "
                "some, or lower config.checkpoint.keep."
            )
        if number in _AWAY:
            return MachineGone(
                f"the storage of {where} fails ({os.strerror(number)}). See that it is mounted and "
                "can be written."
            )
        missing = isinstance(cause, FileNotFoundError) and _is_in(cause, folder)
        if missing and not folder.exists() and not url:
            return MachineGone(
                f"the work directory {folder} is no longer there: it was moved, deleted or "
                "unmounted while the run wrote in it. Put it back, or name its new place."
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _folder_of(error: BaseException, folder: Path) -> Path:
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or Path(name).is_relative_to(folder):
        return folder
    return next((parent for parent in Path(name).parents if parent.is_dir()), folder)


def _is_in(error: OSError, folder: Path) -> bool:
    """Whether an error is of a file in the folder, which libraries name in their texts only."""
    if isinstance(error.filename, str):
        return Path(error.filename).absolute().is_relative_to(folder.absolute())
    return str(folder.absolute()) in str(error)


def _room(folder: Path) -> str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return ""
    return f" ({usage.free:,} of {usage.total:,} bytes are free)"
