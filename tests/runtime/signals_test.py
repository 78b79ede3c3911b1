"""Signals that ask a program to stop, sent to a program of a few lines."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1

import pytest

ROOT = Path(__file__).parents[2]
# Works for some seconds, or is in a call that Python cannot interrupt, as a compile is.
PROGRAM = """
import ctypes, gc, signal, sys, time
from score_jax.runtime.signals import Signals, Stopped, begun, ended

with Signals() as signals:
    try:
        print("ready", flush=True)
        if "import" in sys.argv:
            time.sleep(20)
        if "callback" in sys.argv:
            gc.callbacks.append(lambda phase, info: phase == "start" and signal.raise_signal(15))
            gc.collect()
            gc.callbacks.clear()
            time.sleep(20)
        if "taken" in sys.argv:  # as the TPU's compiler does: Python is not told
            ctypes.CDLL(None).signal(1, ctypes.c_void_p(1))
        stop = signals.noted()
        if "step" in sys.argv:
            time.sleep(0.5)
        if "compile" in sys.argv:
            begun("compile")
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                ctypes.CDLL(None).usleep(1500000)
            ended("compile")
        end = time.monotonic() + 20
        while not stop() and time.monotonic() < end:
            time.sleep(0.02)
        print("saved after", signals.came)
    except Stopped as error:
        print("nothing to save:", error)
"""
LINE = "stopping after this compile; a second signal ends the process at once.\n"


def sent(*signals: signal.Signals | float, doing: str = "", ignored: tuple[int, ...] = ()):
    """(exit status, output) of the program that gets signals, with pauses in seconds between."""

    def as_the_shell_starts_it():
        for number in (SIGINT, SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, doing],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=as_the_shell_starts_it,
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    for one in signals:
        time.sleep(one) if isinstance(one, float) else child.send_signal(one)
    return child.wait(timeout=30), child.stdout.read()


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP, SIGUSR1])
def test_every_signal_lets_the_program_save(number):
    status, said = sent(number, doing="step")
    line = LINE.replace("after this compile", "as soon as all is saved")
    assert (status, said) == (0, f"score_jax: {number.name}: {line}saved after {number.name}\n")


def test_before_there_is_anything_to_save_it_ends_at_once():
    assert sent(SIGINT, doing="import") == (0, "nothing to save: SIGINT\n")


def test_a_signal_that_comes_in_a_callback_of_the_garbage_collector_is_not_lost():
    began = time.monotonic()
    status, said = sent(doing="callback")
    assert (status, said) == (0, "nothing to save: SIGTERM\n") and time.monotonic() - began < 10


def test_during_a_compile_a_line_says_that_it_is_waited_for():
    status, said = sent(SIGHUP, doing="compile")
    assert (status, said) == (0, f"score_jax: SIGHUP: {LINE}saved after SIGHUP\n")


def test_a_second_signal_ends_it_at_once_even_in_a_compile():
    began = time.monotonic()
    status, said = sent(SIGINT, 0.3, SIGTERM, doing="compile")
    assert status == -SIGTERM and said == f"score_jax: SIGINT: {LINE}"
    assert time.monotonic() - began < 1.4


def test_a_terminal_that_closes_sends_two_signals_and_means_one():
    assert sent(SIGHUP, 0.01, SIGHUP, doing="compile")[0] == 0


def test_a_signal_that_a_library_made_the_process_ignore_is_heard_again():
    status, said = sent(0.7, SIGHUP, doing="taken")
    assert status == 0 and said.endswith("saved after SIGHUP\n")


@pytest.mark.parametrize("number", [SIGINT, SIGHUP])
def test_what_was_ignored_at_the_start_stays_ignored(number):
    status, said = sent(number, number, SIGTERM, ignored=(number,))
    assert status == 0 and "saved after SIGTERM\n" in said
