"""Settings from a command line: `--config=FILE[:RECIPE] --config.KEY=VALUE …`.

What is wrong with an argument is said in one message, an InputError, whichever library noticed.
"""

import ast
import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from score_jax.config.build import resolve
from score_jax.config.settings import Settings
from score_jax.problem import InputError

# What the flag library, or a config file, raises of whatever is wrong.
_FAULTS = (flags.Error, ImportError, AttributeError, KeyError, TypeError, ValueError, OSError)


def define_config(values: flags.FlagValues) -> None:
    """Adds the flag --config. Its overrides are read off sys.argv."""
    config_flags.DEFINE_config_file(
        "config", None, "An experiment: configs/NAME.py[:RECIPE].", flag_values=values
    )


def settings_of(arguments: Sequence[str]) -> Settings:
    """The settings of a config file with overrides. Raises: InputError."""
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        values = flags.FlagValues()
        define_config(values)
        settings = parse(values, sys.argv)
    finally:
        sys.argv = before
    if settings is None:
        raise InputError(f"--config=FILE is missing. {known_configs()}")
    return settings


def parse(given: flags.FlagValues, argv: Sequence[str]) -> Settings | None:
    """Parses all flags of `argv`, program name first; the settings, None without --config.

    Raises: InputError with one message for whatever is wrong with them.
    """
    try:
        path = _config_file(argv)
        with _importable(path.resolve().parents[1]) if path else contextlib.nullcontext():
            rest = given(list(argv))
            config = given.config  # a config file without overrides is only loaded here
    except InputError:
        raise
    except _FAULTS as error:
        raise InputError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected arguments: {' '.join(rest[1:])}. Settings are --config.KEY=…")
    return resolve(config) if config is not None else None


def _config_file(argv: Sequence[str]) -> Path | None:
    """The file that --config names, None without. Raises: InputError if it is not there."""
    for argument in argv:
        if match := re.match(r"--?config=([^:]*)", argument):
            path = Path(match.group(1))
            if not path.is_file():
                raise InputError(f"there is no config file {path}. {known_configs()}")
            return path
    return None


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """So that `from configs import gsm8k` works in a config wherever the command is run."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def known_configs() -> str:
    """The end of an error message about a config: those that are here."""
    known = ", ".join(sorted(map(str, Path("configs").rglob("*.py"))))
    return (
        f"In this directory: {known}."
        if known
        else "There is no configs/ here: name the file by its whole path, or run this from the "
        "repository's root."
    )


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
