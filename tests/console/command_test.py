"""Small commands end with a status and one message, whatever they meet."""

import errno
import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from score_jax.console import command
from score_jax.problem import InputError

COMMANDS = (
    *("bench", "data.files.prepared", "data.repair.attempts", "report.compare"),
    *("report.comparison.real", "report.comparison.results", "report.comparison.tables"),
    *("report.run_page", "rollout.conformance", "rollout.serve"),
)


def raising(error: BaseException):
    def main(arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (lambda arguments: None, 0, ""),
        (lambda arguments: len(arguments), 2, ""),
        (raising(InputError("x is missing.")), 2, "score_jax: x is missing.\n"),
        (raising(KeyboardInterrupt()), 130, "score_jax: stopped by Ctrl-C.\n"),
        (
            lambda arguments: Path("/").read_text(),
            2,
            "score_jax: /: Is a directory. Name another.\n",
        ),
        (lambda arguments: Path("/no/such").read_text(), 2, "/no/such: No such file"),
        (raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")), 74, "no space is left"),
    ],
)
def test_what_a_command_meets_is_its_status_and_at_most_one_line(
    main, status, said, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["command", "/no/such", "--out=/"])
    with pytest.raises(SystemExit) as ended:
        command.run(main)
    assert ended.value.code == status
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == bool(said)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        OSError(errno.ECONNRESET, "reset"),
        FileNotFoundError(errno.ENOENT, "not there", "/of/nobody"),
        urllib.error.HTTPError("a", 404, "gone", None, None),
    ],
)
def test_an_error_of_the_program_stays_one(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command", "a"])
    with pytest.raises(type(error)):
        command.run(raising(error))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_nobody_reads_ends_without_a_traceback(name):
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", f"score_jax.{name}", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, "")
