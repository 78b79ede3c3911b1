"""Outputs that go away, of a program of a few lines: closed pipes and terminals, nothing open."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Says that it is ready, waits until its outputs are gone, and then says something in every way.
PROGRAM = """
import logging, os, subprocess, sys, time, warnings
import absl.logging
from score_jax.console import outputs, storage
from score_jax.runtime.signals import Signals
from score_jax.workdir.progress import Progress

def work(path):
    absl.logging.use_absl_handler()
    progress = Progress(line_sec=0)
    progress.start_stage("stage1", 3)
    with Signals() as signals:
        stop = signals.noted()
        print("ready", flush=True)
        sys.stdin.read()
        for step in (1, 2, 3):
            progress.show(step, {"loss": 1.0})
            progress.say("evaluated")
            print("unflushed")
            print("an alarm", file=sys.stderr)
            logging.warning("from logging")
            absl.logging.error("from absl")
            warnings.warn(f"warning {step}")
            subprocess.run([sys.executable, "-c", "print(1, flush=True)"], check=True)
            time.sleep(0.3)  # rich shows its bar every quarter of a second
        progress.close()
        open(path, "a").write(f"{stop()}, {signals.came}\\n")

with outputs.guarded():
    if "shown" not in sys.argv:
        outputs.go_on()
    try:
        work(sys.argv[1])
    except OSError as error:
        open(sys.argv[1], "a").write(str(storage.lost(error, ".") or error))
"""


def begun(path: Path, *arguments: str, ignored: int = 0, **streams) -> subprocess.Popen[str]:
    """The program; it goes on when its standard input ends. ignored: a signal."""

    def as_the_shell_starts_it():
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)
        if "terminal" in arguments:
            os.setsid()
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        text=True,
        preexec_fn=as_the_shell_starts_it,
        **streams,
    )


def through_a_pipe(path: Path, *arguments: str, close: str = "stdout", **streams):
    """(exit status, the rest of its output) of a program whose pipe `close` is closed."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = begun(path, *arguments, **(piped | streams))
    assert child.stdin and child.stdout and child.stdout.readline() == "ready\n"
    getattr(child, close).close()
    child.stdin.close()
    rest = child.stderr if close == "stdout" else child.stdout
    said = rest.read() if rest else ""
    return child.wait(timeout=30), said


def test_work_goes_on_when_the_reader_of_its_output_ends(tmp_path):
    status, said = through_a_pipe(tmp_path / "done")
    assert (status, (tmp_path / "done").read_text()) == (0, "False, \n")
    assert said.startswith("score_jax: standard output cannot be written (Broken pipe): work")
    assert said.count("standard output") == 1 and said.count("an alarm") == 3
    assert "BrokenPipe" not in said and "Traceback" not in said


def test_work_goes_on_when_both_outputs_are_one_pipe(tmp_path):
    status, _ = through_a_pipe(tmp_path / "done", stderr=subprocess.STDOUT)
    assert (status, (tmp_path / "done").read_text()) == (0, "False, \n")


def test_a_broken_error_output_leaves_the_other_as_it_is(tmp_path):
    for argument in ("", "shown"):
        path = tmp_path / f"done{argument}"
        status, said = through_a_pipe(path, argument, close="stderr")
        assert (status, path.read_text()) == (0, "False, \n")
        assert said.count("evaluated") == 3 and said.count("unflushed") == 3


def test_a_program_that_is_its_output_ends_quietly_as_a_filter_does(tmp_path):
    status, said = through_a_pipe(tmp_path / "done", "shown")
    assert (status, said) == (141, "")
    assert not (tmp_path / "done").exists()


def test_what_was_never_flushed_ends_it_quietly_too():
    program = """
import sys
from score_jax.console import outputs
with outputs.guarded():
    print("unflushed")
    sys.stdin.read()
sys.exit(0)
"""
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=written, stderr=subprocess.PIPE, input=b""
    )
    os.close(written)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("argument", "status"), [("", 0), ("shown", 1)])
def test_a_full_disk_under_an_output_is_not_that_of_the_storage(tmp_path, argument, status):
    with open("/dev/full", "w") as full:
        child = begun(tmp_path / "done", argument, stdout=full, stderr=subprocess.PIPE)
        said = child.communicate(timeout=30)[1]
    assert child.returncode == status
    assert "standard output cannot be written (No space left on device)" in said
    assert "Traceback" not in said and (tmp_path / "done").exists() == (status == 0)


@pytest.mark.parametrize("ignored", [0, signal.SIGHUP])
def test_work_goes_on_when_its_terminal_closes(tmp_path, ignored):
    ours, theirs = os.openpty()
    child = begun(tmp_path / "done", "terminal", ignored=ignored, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    child.communicate(timeout=30)
    came = "False, \n" if ignored else "True, SIGHUP\n"
    assert (child.returncode, (tmp_path / "done").read_text()) == (0, came)


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-", "0<&- >&- 2>&-"])
def test_what_is_closed_at_the_start_is_the_null_device(tmp_path, closed):
    program = """
import os, sys
from score_jax.console import outputs
with outputs.guarded():
    outputs.go_on()
    opened = open(sys.argv[1], "w")
    assert opened.fileno() > 2, opened.fileno()
    print(sys.stdin.readline(), sys.stdout.isatty(), sys.stderr.isatty(), sep=",", file=opened)
    os.system("echo from a child; echo from a child >&2")
    print("out")
    print("err", file=sys.stderr)
"""
    path = tmp_path / "file"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, program, path],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, path.read_text()) == (0, ",False,False\n"), done.stderr
    assert done.stdout == ("" if " >&-" in f" {closed}" else "from a child\nout\n")
    assert done.stderr == ("" if "2>&-" in closed else "from a child\nerr\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_keep_how_they_write(unbuffered):
    program = """
import os, sys
from score_jax.console import outputs
with outputs.guarded():
    print("a Δ", end="")
    os.write(1, b"b")
    assert (sys.stdout.encoding, sys.stdout.fileno()) == ("iso8859-1", 1)
"""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == ("a ?b" if unbuffered else "ba ?"), done.stderr
