"""Settings from a command line: `--config=FILE[:RECIPE] --config.KEY=VALUE …`.

FILE is a local file or, if there is none, one of the configs that the package ships: an installed
`score-jax --config=configs/quickstart.py` works in any directory. A wrong argument is reported in
one message, an InputError, whichever library noticed it.
"""

import ast
import contextlib
import re
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from score_jax.config.build import resolve
from score_jax.config.settings import Settings
from score_jax.problem import InputError, nearest

# The shipped configs: setup.py puts them into the wheel; a checkout has them beside the package.
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = (_PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent) / "configs"


def define_config(values: flags.FlagValues) -> None:
    """Adds the flag --config. The flag library takes --config.KEY=VALUE from sys.argv."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "An experiment: configs/NAME.py[:RECIPE].",
        flag_values=values,
        # Entries of mappings, such as config.problems.fields.answer, are new to the config file.
        # Names that no setting has are refused by `resolve`.
        accept_new_attributes=True,
        lock_config=False,
    )
    parser: Any = values["config"].parser
    load = parser.parse

    def checked(file: str) -> ConfigDict:  # the flag library would override any object's fields
        config = load(file)
        if isinstance(config, ConfigDict):
            return config
        raise InputError(
            f"{file}: get_config() of the config returned {config!r:.80}. It must return "
            "to_config_dict(Settings(…)) of score_jax.config, as configs/quickstart.py does."
        )

    parser.parse = checked


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
    argv, path = list(argv), None
    sys.modules.pop("config_config", None)  # else the file is loaded into the last one's names
    try:
        path = _find_config(argv)
        with _importable(path.resolve().parent) if path else contextlib.nullcontext():
            rest = given(argv)
            config = given.config  # a config file without overrides is only loaded here
    except (Exception, SystemExit) as error:  # a config is a program, which may fail in any way
        raise _refusal(error, path, argv) from error
    if len(rest) > 1:
        raise InputError(f"unexpected arguments: {' '.join(rest[1:])}. Settings are --config.KEY=…")
    return resolve(config) if config is not None else None


def _find_config(argv: list[str]) -> Path | None:
    """The file that --config names; None without --config.

    If only the package has that file, puts its path into `argv` and prints a line about it.
    Raises: InputError if neither has it.
    """
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            argument = f"--config={argv.pop(i + 1)}"
        if not (match := re.match(r"--?config=([^:]*)(.*)", argument)):
            continue
        path = Path(match[1])
        if path.is_file():
            argv[i] = argument
            return path
        shipped = _SHIPPED.parent / path
        if path.parts[:1] != ("configs",) or ".." in path.parts or not shipped.is_file():
            raise InputError(f"there is no config file {path}. {known_configs(str(path))}")
        print(f"No {path} in this directory: using {shipped}.", file=sys.stderr)
        argv[i] = f"--config={shipped}{match[2]}"
        return shipped
    return None


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Makes `from configs import gsm8k` work in a config, wherever the command is run.

    While the config loads, the package `configs` is `folder`, configs/ of this directory and the
    shipped configs, in this order. So no installed package needs to have that name.
    """
    package = types.ModuleType("configs")
    package.__path__ = [str(folder), str(Path("configs").resolve()), str(_SHIPPED)]
    before = _configs_modules()
    for name in before:
        del sys.modules[name]
    sys.modules["configs"] = package
    try:
        yield
    finally:
        for name in _configs_modules():
            del sys.modules[name]
        sys.modules.update(before)


def _configs_modules() -> dict[str, types.ModuleType]:
    return {name: sys.modules[name] for name in sys.modules if re.match(r"configs(\.|$)", name)}


def known_configs(name: str = "") -> str:
    """The end of an error message about --config: the configs there are.

    Args:
      name: a config that does not exist; the most similar one is suggested.
    """
    local, shipped = (
        {str(path.relative_to(root)) for path in (root / "configs").rglob("*.py")}
        for root in (Path(), _SHIPPED.parent)
    )
    return nearest(name, local | shipped)


def _refusal(error: BaseException, path: Path | None, argv: Sequence[str]) -> InputError:
    """What was raised while the flags were parsed, as one message."""
    errors = [error]  # the flag library raises others in place of TypeErrors and ValueErrors
    while (cause := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(cause)
    for one in reversed(errors):
        if isinstance(one, InputError):
            return one
    for one in errors:
        frames = traceback.extract_tb(one.__traceback__)
        lines = [f.lineno for f in frames if path and Path(f.filename) == path]
        if lines:
            where = f"{path}, line {lines[-1]}: {type(one).__name__}: "
            return InputError(f"{where}{_explain(one, argv)}")
    said = _explain(error, argv)
    if path and "get_config" in said:
        said = (
            f"{path}: {said}. It must define get_config(), or get_config(recipe) for FILE:RECIPE."
        )
    return InputError(said)


def _explain(error: BaseException, argv: Sequence[str]) -> str:
    """An error in one line, with the argument that caused it, if that is known."""
    try:
        raw = str(error.args[0] if error.args else error).strip()
    except Exception:  # of the config's own class
        raw = "an error without a message"
    if isinstance(error, SystemExit):
        raw = f"the config ends the program ({raw}). Let it raise an error that says why."
    if isinstance(error, SyntaxError):
        raw = f"{error.filename}, line {error.lineno} is not Python: {raw}. Correct the config."
    if "allow_dotted_keys" in raw:
        raw = (
            f"{raw.partition(':')[0]}: a name in it has a dot, which parts the path of a setting. "
        )
        raw += "Use letters, digits, '_' and '-'."
    if "Traceback" in raw:  # raised in the config file: the last line is the error
        raw = raw.splitlines()[-1].partition(": ")[2]
    with contextlib.suppress(SyntaxError, ValueError):
        raw = str(ast.literal_eval(raw))  # a KeyError shows its message quoted
    message = " ".join(raw.split())
    for argument in argv:
        path = argument.partition("=")[0]
        group, dot, key = path.rpartition(".")
        if dot and group.endswith(f".{message}"):  # of a mapping that has no such entry yet
            return f"there is no {group}. Give it whole: {group}=\"{{'{key}': …}}\""
        unknown = [n for n in path.split(".")[1:] if message.startswith(f"'{n}'")]
        if path.startswith("--config.") and unknown:
            return f"unknown setting {path}: {message}"
    return message
