"""Command line: `python -m score_jax.main --config=configs/NAME.py --workdir=DIR [--mode=M]`.

Reads the flags, makes the settings and calls one mode. Exit status: 0 done; 2 bad settings or
input, with one message on standard error; 74 the machine lacks disk space, processes or file
handles; 75 stopped by a signal after saving; 76 ended by the watchdog because a step hung; 141 what
--help, --mode=plan, replay or try prints has no reader. After 74, 75 and 76 re-running the same
command resumes.
"""

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import score_jax
from score_jax.buckets import client as buckets
from score_jax.buckets import places
from score_jax.config import command_line
from score_jax.config.build import resolve
from score_jax.config.settings import Settings
from score_jax.console import outputs, storage
from score_jax.console.command import BAD_INPUT, DONE
from score_jax.problem import InputError, MachineGone, nearest
from score_jax.runtime import ahead, heap
from score_jax.runtime.signals import Signals
from score_jax.workdir import named

STOPPED = 75  # an exit status, as DONE and BAD_INPUT are; that of MachineGone is its own

FLAGS_OF_A_MODE = {
    "question": "try",
    "push": "export",
    "file": "replay",
    **dict.fromkeys(("topology", "device", "memory"), "plan"),
}

SHOWN = ("try", "plan", "replay")  # modes whose product is what they print; --help is another


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv` (program name first) and returns the exit status."""
    with Signals() as signals:
        return _run(argv, signals)


def _run(argv: Sequence[str], signals: Signals) -> int:
    given = _flags()
    try:
        settings = _settings(given, argv)
        mode = MODES.get(given.mode)
        if mode is None:
            raise InputError(f"unknown --mode={given.mode}. {nearest(given.mode, MODES)}")
        if given.mode == "replay" and not given.file:
            raise InputError(
                "--file=FILE is missing: a saved step, such as DIR/diagnosis/stage1-7.json."
            )
        if not given.workdir and given.mode not in ("plan", "replay"):
            raise InputError("--workdir=DIR is missing: the folder of the run, e.g. runs/first.")
        _check_folders(given)
        for name, mode_of_it in FLAGS_OF_A_MODE.items():
            if given[name].value and given.mode != mode_of_it:
                raise InputError(
                    f"--{name} is for --mode={mode_of_it}; leave it out, or add that mode."
                )
        if given.mode not in SHOWN:
            outputs.go_on()
        _join_others(given, signals)
        with _at_hand(given):
            return mode(settings, given, signals)
    except InputError as error:
        print(f"score_jax: {places.shown(str(error))}", file=sys.stderr)
        _leave_word(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        print(
            f"score_jax: stopped by {signals.came or 'Ctrl-C'} before there was anything new to "
            "save; the same command starts again.",
            file=sys.stderr,
        )
        return STOPPED
    except Exception as error:
        lost = storage.lost(error, Path(given["workdir"].value or "."))
        _leave_word(str(lost or f"{type(error).__name__}: {error}"), None if lost else error)
        if lost is None:
            raise
        print(f"score_jax: {places.shown(str(lost))} Re-running resumes.", file=sys.stderr)
        return MachineGone.status


def _leave_word(reason: str, error: Exception | None = None) -> None:
    """Tells the other processes of the run, if there are any and none of them is the reason."""
    if "jax" in sys.modules:  # else there is only this one
        from score_jax.runtime import hosts

        if error:
            hosts.await_word(error)
        hosts.leave_word(reason)


def console() -> None:
    """The `score-jax` command."""
    heap.keep_pages()
    with outputs.guarded():
        status = main(sys.argv)
    if status in (DONE, STOPPED) and not (ahead.is_busy() and _is_alone()):
        sys.exit(status)
    # What still writes in the background, or waits for other processes, would fail with tracebacks;
    # and what is compiled for later would be waited for.
    os._exit(status)


def _is_alone() -> bool:
    """Whether the run has one process; of several, one that leaves out of order counts as lost."""
    return "jax" not in sys.modules or sys.modules["jax"].process_count() == 1


def _flags() -> flags.FlagValues:
    """All flags, unparsed. Overrides of the config are read from sys.argv."""
    values = flags.FlagValues()
    command_line.define_config(values)
    flags.DEFINE_string(
        "workdir",
        None,
        "The folder of the run, which may be gs://BUCKET/PATH.",
        values,
    )
    flags.DEFINE_string("mode", "train", f"What to do: {', '.join(MODES)}.", values)
    flags.DEFINE_string(
        "base_from", "", "Start with the base model of the run in this work directory.", values
    )
    flags.DEFINE_string("export_dir", "", "Where to export to; empty: WORKDIR/export.", values)
    flags.DEFINE_string("export_dtype", "", "float32 or bfloat16; empty: as trained.", values)
    flags.DEFINE_boolean(
        "export_adapters", False, "Export only LoRA's adapters, in PEFT's layout.", values
    )
    flags.DEFINE_string("push", "", "OWNER/NAME: uploads the export to the hub too.", values)
    flags.DEFINE_string(
        "device", "", "For --mode=plan: a device and how many, such as a100-80gb:8.", values
    )
    flags.DEFINE_string("memory", "", "For --mode=plan: of one device, such as 24GiB.", values)
    flags.DEFINE_string(
        "topology", "", "For --mode=plan: a TPU slice to compile for, such as v5e:4x4.", values
    )
    flags.DEFINE_string("file", "", "For --mode=replay: a step that a run saved.", values)
    flags.DEFINE_string("question", "", "For --mode=try: the question; empty: you type it.", values)
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, with several processes; see hosts.py.", values
    )
    flags.DEFINE_integer("processes", 0, "How many processes the run has.", flag_values=values)
    flags.DEFINE_integer("process", -1, "Index of this process, from 0.", flag_values=values)
    flags.DEFINE_boolean("version", False, "Print the version.", values)
    flags.DEFINE_boolean(
        "help", False, "Print this help, or -h; with --config its settings too.", values
    )
    return values


def _settings(given: flags.FlagValues, argv: Sequence[str]) -> Settings:
    """Parses the flags; --help and --version print and exit. Raises: InputError."""
    settings = command_line.parse(given, ["--help" if a == "-h" else a for a in argv])
    if given.help:
        from score_jax.modes import help  # what it lists takes seconds to import

        own = (name for name in given if not name.startswith("config."))  # no overrides
        described = {name: given[name].help for name in own}
        config = config_flags.get_config_filename(given["config"]) if settings else ""
        print(help.usage(described, settings, config.partition(":")[0]))
        raise SystemExit(0)
    if given.version:
        jax = importlib.metadata.version("jax")  # from its metadata: importing it takes seconds
        print(f"score-jax {score_jax.__version__} (jax {jax}, Python {platform.python_version()})")
        raise SystemExit(0)
    if settings is None and given.mode == "replay" and given.file:
        from score_jax.workdir import diagnosis  # a saved step holds its settings

        return resolve(diagnosis.settings_of(diagnosis.at_hand(given.file)))
    if settings is None:
        raise InputError(f"--config=FILE is missing. {command_line.known_configs()}")
    return settings


FOLDERS = ("workdir", "base_from", "export_dir")  # flags


def _check_folders(given: flags.FlagValues) -> None:
    """Expands `~`, and refuses what can be no folder or bucket. Raises: InputError."""
    for name in FOLDERS:
        value = given[name].value or ""
        if value.startswith(("http://", "https://")):
            raise InputError(
                f"--{name}={value} is not a folder. Name a folder, or gs://BUCKET/PATH."
            )
        buckets.check(value)
        if value and not buckets.is_url(value):
            given[name].value = str(named.folder(value, f"--{name}={value}"))


@contextlib.contextmanager
def _at_hand(given: flags.FlagValues) -> Iterator[None]:
    """While the body runs, flags that name folders in buckets name local ones that stand for them.

    Raises: InputError if there is no such bucket.
    """
    away = {n: str(given[n].value) for n in FOLDERS if buckets.is_url(given[n].value or "")}
    if not away:
        yield
        return
    from score_jax.workdir import spool  # imports jax

    with contextlib.ExitStack() as folders:
        for name, url in away.items():
            opened = spool.empty(url) if name == "export_dir" else spool.opened(url)
            given[name].value = str(folders.enter_context(opened))
        yield


def _join_others(given: flags.FlagValues, signals: Signals) -> None:
    """Joins the other processes of this run, if it has several. Raises: InputError."""
    from score_jax.runtime import hosts

    hosts.join(given.coordinator, given.processes, given.process)
    signals.handle()  # joining makes jax handle SIGTERM, as a notice of preemption


def _train(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax import loop
    from score_jax.runtime import hosts

    stop = hosts.stop_of(signals)
    return loop.train(settings, given.workdir, base_from=given.base_from, stop=stop)


def _evaluate(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax.modes import evaluate
    from score_jax.runtime import hosts

    stop = hosts.stop_of(signals)
    return _unless_stopped(lambda: evaluate.evaluate_latest(settings, Path(given.workdir), stop))


def _scale(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax.modes import scale
    from score_jax.runtime import hosts

    stop = hosts.stop_of(signals)
    return _unless_stopped(lambda: scale.scale_latest(settings, Path(given.workdir), stop))


def _unless_stopped(work: Callable[[], None]) -> int:
    from score_jax.runtime.hosts import Interrupted

    try:
        work()
    except Interrupted:
        print("score_jax: stopped by a signal; what is done is kept, and re-running goes on.")
        return STOPPED
    return DONE


def _export(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax.modes import export

    export.export_latest(
        settings,
        Path(given.workdir),
        given.export_dir,
        dtype=given.export_dtype,
        adapters=given.export_adapters,
        push_to=given.push,
    )
    return DONE


def _try(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax.modes import ask

    ask.ask_latest(settings, Path(given.workdir), given.question)
    return DONE


def _replay(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    from score_jax.modes import replay
    from score_jax.workdir import diagnosis

    workdir = Path(given.workdir) if given.workdir else None
    replay.replay(settings, diagnosis.at_hand(given.file), workdir)
    return DONE


def _plan(settings: Settings, given: flags.FlagValues, signals: Signals) -> int:
    if bool(given.topology) == bool(given.device or given.memory):
        raise InputError(
            "--mode=plan needs the machine to plan for: --device=KIND:COUNT (such as rtx4090, "
            "a100-80gb:8 or v5e-16), or --memory=24GiB of any device. Or only --topology=SLICE "
            "(such as v5e:4x4, 16 chips): the TPU's compiler then checks the plan."
        )
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs on a device; jax reads this when imported
    from score_jax.modes.plan import chips, plan

    if given.topology:
        plan.plan(settings, chips.slice_of(given.topology), compile=True)
    else:
        plan.plan(settings, chips.machine_of(given.device, given.memory))
    return DONE


# Modes import jax where they start, so that a mistyped flag is reported without that wait.
MODES: dict[str, Callable[[Settings, flags.FlagValues, Signals], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "scale": _scale,
    "export": _export,
    "try": _try,
    "plan": _plan,
    "replay": _replay,
}


if __name__ == "__main__":
    console()
