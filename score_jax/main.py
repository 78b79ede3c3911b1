"""Command line: `python -m score_jax.main --config=configs/NAME.py --workdir=DIR [--mode=M]`.

Flags to settings to one of the modes, and nothing else. Exit status: 0 done; 2 bad settings or
input, one message on standard error; 75 stopped by a signal after saving, run the same command
again.
"""

import ast
import contextlib
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

BAD_INPUT = 2


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    given = _flags()
    try:
        settings = _settings(given, argv)
        mode = MODES.get(given.mode)
        if mode is None:
            raise InputError(f"unknown --mode={given.mode}. {nearest(given.mode, MODES)}")
        if not given.workdir:
            raise InputError("--workdir=DIR is missing: the run is kept there, e.g. runs/first.")
        return mode(settings, given.workdir)
    except InputError as error:
        print(f"score_jax: {error}", file=sys.stderr)
        return BAD_INPUT


def settings_of(arguments: Sequence[str]) -> Settings:
    """The settings of `--config=FILE --config.KEY=VALUE …`. Raises: InputError."""
    # The config flag reads its overrides off the program's own arguments.
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        return _settings(_flags(), sys.argv)
    finally:
        sys.argv = before


def console() -> None:
    """The `score-jax` command."""
    sys.exit(main(sys.argv))


def _flags() -> flags.FlagValues:
    """The flags there are, unparsed. Overrides of the config are read off sys.argv."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "An experiment: configs/NAME.py[:RECIPE].", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Where everything of the run is kept.", values)
    flags.DEFINE_string("mode", "train", f"What to do: {', '.join(MODES)}.", values)
    flags.DEFINE_boolean("help", False, "Show this help.", values)
    return values


def _settings(given: flags.FlagValues, argv: Sequence[str]) -> Settings:
    """Parses the flags. Raises: InputError with one message for whatever is wrong with them."""
    try:
        _check_config_file(argv)
        rest = given(list(argv))
        if given.help:
            print(__doc__, given.main_module_help() or given.get_help(), sep="\n")
            raise SystemExit(0)
        config = given.config  # a config file without overrides is only loaded here
    except InputError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected arguments: {' '.join(rest[1:])}. Settings are --config.KEY=…")
    if config is None:
        raise InputError(f"--config=FILE is missing. {_known_configs()}")
    return resolve(config)


def _check_config_file(argv: Sequence[str]) -> None:
    for argument in argv:
        if match := re.match(r"--?config=([^:]*)", argument):
            path = Path(match.group(1))
            if not path.is_file():
                raise InputError(f"there is no config file {path}. {_known_configs()}")


def _known_configs() -> str:
    known = ", ".join(sorted(map(str, Path("configs").rglob("*.py"))))
    return f"In this directory: {known}." if known else "Run this from the repository's root."


def _explain(error: Exception, argv: Sequence[str]) -> str:
    """The flag library's error in one line, and the argument it is about, if that can be told."""
    raw = str(error.args[0] if error.args else error).strip()
    if "Traceback" in raw:  # the config file itself raised: its last line says what
        raw = raw.splitlines()[-1].partition(": ")[2]
    with contextlib.suppress(SyntaxError, ValueError):
        raw = str(ast.literal_eval(raw))  # a KeyError shows its message quoted
    message = " ".join(raw.split())
    for argument in argv:
        path = argument.partition("=")[0]
        unknown = [n for n in path.split(".")[1:] if message.startswith(f"'{n}'")]
        if path.startswith("--config.") and unknown:
            return f"unknown setting {path}: {message}"
    return message


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
