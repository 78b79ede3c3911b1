"""Runs a program as a script, inside the sandbox: its standard input given, its output captured.

The descriptors 0 and 1 are pipes, so reading by `input`, `sys.stdin` and `open(0)` all work.
Threads that are not daemons are waited for, and exit handlers run, as at the end of a process.

Not handled: os._exit and unflushed output at a crash, as the process continues with the next input.
"""

import atexit
import contextlib
import os
import sys
import threading
import types

MAX_OUTPUT_BYTES = 4_000_000  # more is dropped; no expected output is as long


def run(prelude: str, program: str, given: str) -> str:
    """What the program prints. Raises: what it raises; SystemExit if its status is not 0."""
    kept = [os.dup(number) for number in (0, 1)]
    standard = sys.stdin, sys.stdout
    source, printed = os.pipe(), os.pipe()
    output: list[bytes] = []
    feeder = threading.Thread(target=_feed, args=(source[1], given.encode()), daemon=True)
    collector = threading.Thread(target=_collect, args=(printed[0], output), daemon=True)
    try:
        os.dup2(source[0], 0)
        os.dup2(printed[1], 1)
        os.close(source[0])
        os.close(printed[1])
        feeder.start()
        collector.start()
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        _execute(prelude, program)
        sys.stdout.flush()
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)  # so that the collector reads the end of file
            os.close(descriptor)
        sys.stdin, sys.stdout = standard
    collector.join()
    return b"".join(output).decode(errors="replace")


def _execute(prelude: str, program: str) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    vars(module).update(exit=sys.exit, quit=sys.exit)  # as in a Python that loads `site`
    sys.argv = ["program.py"]
    sys.modules["random"].seed(0)
    try:
        for code in (prelude, program):
            exec(compile(code, "<program>", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()


def _feed(descriptor: int, data: bytes) -> None:
    try:
        with contextlib.suppress(OSError):  # the program ended before it had read all of it
            while data:
                data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _collect(descriptor: int, output: list[bytes]) -> None:
    left = MAX_OUTPUT_BYTES
    while data := os.read(descriptor, 1 << 16):
        output.append(data[:left])
        left = max(0, left - len(data))
    os.close(descriptor)
