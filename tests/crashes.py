"""Runs the command line again and again, and kills it (-9) where it is told to.

    with Crashes(log) as crashes:
        status = crashes.run(argv, Kill("score_jax.learner.step:train_step", call=2))

Each run is a process of its own, forked from one that has imported everything: a start costs a
second. A `Kill` names a function; the process kills itself when that is called for the nth time.
"""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
KILLED = -signal.SIGKILL


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a run dies. sec: after so many seconds of its life, wherever it is then."""

    at: str = ""  # MODULE:NAME of a function, or of a method as MODULE:CLASS.NAME
    call: int = 1
    when: str = "before"  # the call; or "after" it, or "half": half of the bytes are written
    later_sec: float = 0.0  # the process goes on for so long
    sec: float = 0.0
    number: int = signal.SIGKILL  # or another signal

    def __str__(self) -> str:
        where = f"{self.at.rsplit('.', 1)[-1]} {self.call} {self.when}" if self.at else ""
        return f"{where or self.sec}{f' +{self.later_sec}' if self.later_sec else ''}"


class Crashes:
    """The process that forks; the output of all runs goes to a file."""

    def __init__(self, log: Path):
        self.log = log

    def __enter__(self) -> "Crashes":
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # a third of the time to compile
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes", str(self.log)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()

    def said(self) -> str:
        """All that the runs have said so far."""
        return self.log.read_text() if self.log.exists() else ""

    def run(self, argv: Sequence[str], kill: Kill | None = None) -> int:
        """The exit status of one run."""
        assert self._server.stdin and self._server.stdout
        asked = {"argv": list(argv), "kill": dataclasses.asdict(kill) if kill else None}
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())


def _serve(log: Path) -> None:
    from score_jax import loop, main  # noqa: F401
    from score_jax.modes import evaluate  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _run(log, asked["argv"], Kill(**asked["kill"]) if asked["kill"] else None)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(log: Path, argv: list[str], kill: Kill | None) -> None:
    from score_jax import main

    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    status = 1
    try:
        if kill and kill.sec:
            _later(kill.sec, kill.number)
        elif kill:
            _install(kill)
        sys.argv = ["score_jax", *argv]
        main.console()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _install(kill: Kill) -> None:
    module, names = kill.at.split(":")
    owner = importlib.import_module(module)
    *path, name = names.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), 0

    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls != kill.call:
            return real(*arguments, **options)
        if kill.when == "half":  # of a write by pathlib
            data = arguments[1]
            real(arguments[0], data[: len(data) // 2], *arguments[2:], **options)
        if kill.later_sec:
            _later(kill.later_sec, kill.number)
        elif kill.when != "after":
            os.kill(os.getpid(), kill.number)
        found = real(*arguments, **options)
        if kill.when == "after" and not kill.later_sec:
            os.kill(os.getpid(), kill.number)
        return found

    setattr(owner, name, wrapped)


def _later(seconds: float, number: int) -> None:
    def kill():
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=kill, daemon=True).start()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
