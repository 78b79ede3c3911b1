"""Runs a small command: one message and a status where it fails, and no traceback.

    if __name__ == "__main__":
        command.run(main)

Exit status: what `main` returns (None: 0); 2 bad input; 74 a disk that is full or gone; 130 Ctrl-C;
141 nobody reads what it prints. `score_jax.main` has more to do at its end (a run's other
processes, signals that save), so it has its own.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from score_jax.buckets import places
from score_jax.console import outputs, storage
from score_jax.problem import InputError, MachineGone

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130  # 130: 128 and the number of SIGINT, as shells have it


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Ends the process with the status of `main`, which gets the arguments of the command line."""
    with outputs.guarded():
        status = _status(main)
    sys.exit(status)


def _status(main: Callable[[Sequence[str]], int | None]) -> int:
    said: object
    try:
        return main(sys.argv[1:]) or DONE
    except InputError as error:
        said, status = error, BAD_INPUT
    except KeyboardInterrupt:
        said, status = "stopped by Ctrl-C.", INTERRUPTED
    except Exception as error:
        said, status = storage.lost(error, Path()), MachineGone.status
        if not said:
            if not (named := _named(error)):
                raise
            said, status = f"{named}. Name another.", BAD_INPUT
    print(f"score_jax: {places.shown(str(said))}", file=sys.stderr)
    return status


def _named(error: Exception) -> str:
    """What is wrong with a file, if the user named it on the command line; else empty."""
    if not isinstance(error, OSError) or not error.strerror:
        return ""
    file = str(error.filename2 or error.filename or "")
    of_user = file and any(file in argument for argument in sys.argv[1:])
    return f"{file}: {error.strerror}" if of_user else ""
