"""Command line: `python -m score_jax.main --config=configs/NAME.py --workdir=DIR [--mode=M]`.

Flags to settings to one of the modes, and nothing else. Exit status: 0 done; 2 bad settings or
input, one message on standard error; 75 stopped by a signal after saving, run the same command
again.
"""

import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from absl import flags
from ml_collections import config_flags

from score_jax.config import Settings, nearest, resolve
from score_jax.problem import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "An experiment: configs/NAME.py, or configs/NAME.py:RECIPE."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything of the run is kept.")
_MODE = flags.DEFINE_string("mode", "train", "What to do: train or evaluate.")

BAD_INPUT = 2


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    try:
        settings = _settings(argv)
        mode = MODES.get(_MODE.value)
        if mode is None:
            raise InputError(f"unknown --mode={_MODE.value}. {nearest(_MODE.value, MODES)}")
        if not _WORKDIR.value:
            raise InputError("--workdir=DIR is missing: the run is kept there, e.g. runs/first.")
        return mode(settings, _WORKDIR.value)
    except InputError as error:
        print(f"score_jax: {error}", file=sys.stderr)
        return BAD_INPUT


def console() -> None:
    """The `score-jax` command."""
    sys.exit(main(sys.argv))


def _settings(argv: Sequence[str]) -> Settings:
    """Parses the flags. Raises: InputError with one message for whatever is wrong with them."""
    try:
        rest = flags.FLAGS(list(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected arguments: {' '.join(rest[1:])}. Settings are --config.KEY=…")
    if _CONFIG.value is None:
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py")))
        raise InputError(f"--config=FILE is missing, e.g. --config=configs/quickstart.py. {known}")
    return resolve(_CONFIG.value)


def _explain(error: Exception, argv: Sequence[str]) -> str:
    """The flag library's error, with the nearest valid setting where it was about a setting."""
    for argument in argv:
        match = re.match(r"--config\.([\w.]+)", argument)
        if match and _CONFIG.value is not None:
            path = match.group(1)
            group = _CONFIG.value
            for i, name in enumerate(path.split(".")):
                if not hasattr(group, "keys") or name not in group:
                    place = ".".join(["config", *path.split(".")[:i]])
                    names = list(group.keys()) if hasattr(group, "keys") else []
                    return f"unknown setting {place}.{name}. {nearest(name, names)}"
                group = group[name]
    return str(error)


def _train(settings: Settings, workdir: str) -> int:
    from score_jax import train

    return train.train(settings, workdir, stop=_stop_on_signals())


def _evaluate(settings: Settings, workdir: str) -> int:
    from score_jax import train

    return train.evaluate_latest(settings, workdir)


# Imported where used, so that a mistyped flag is reported before jax has loaded.
MODES: dict[str, Callable[[Settings, str], int]] = {"train": _train, "evaluate": _evaluate}


def _stop_on_signals() -> Callable[[], bool]:
    """Whether SIGTERM or SIGUSR1 came; the second SIGTERM kills as usual."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, note)
    return lambda: bool(seen)


if __name__ == "__main__":
    console()
