"""Standard output and error of a command that may lose them: `| head`, a terminal that closes.

    with outputs.guarded():         around the whole command
        …                           what is printed is the product: without a reader, it ends
        outputs.go_on()             the product is files: from here on, it works on without output

An output that cannot be written is replaced by the null device, once and for child processes too.
So nothing that prints (progress bars, warnings, logging, the end of the interpreter) gets an error,
which would look like one of the program or of its storage. Streams that something else has put in
their place, such as a notebook, are left alone. Imports no jax: jax takes seconds.
"""

import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

NO_READER = 141  # exit status of what is its output; of `yes` in `yes | head -1` it is this too
_NO_READER = {errno.EPIPE, errno.EIO}  # EIO: of a terminal that is closed


class _Output(io.FileIO):
    """A file descriptor below the streams of Python: their buffers and encodings stay theirs."""

    ends = True  # whether the command does, with standard output
    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        if not self.lost:
            try:
                return super().write(data)
            except OSError as error:
                self._lose(error)
        # In another thread it would end that thread only; the main one prints sooner or later.
        is_main = threading.current_thread() is threading.main_thread()
        if self.lost and _Output.ends and self.fileno() == 1 and is_main:
            raise SystemExit(NO_READER if self.lost.errno in _NO_READER else _said(self.lost))
        return len(data)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        with contextlib.suppress(OSError):  # no file handle is left, or the other is closed too
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if self.fileno() == 1 and not _Output.ends:
                # Not by sys.stderr: a progress bar may stand for it, in the middle of its writing.
                said = f"{_said(error)}: work goes on without it, and all results are in the files."
                os.write(2, f"{said}\n".encode())


def _said(error: OSError) -> str:
    return f"score_jax: standard output cannot be written ({os.strerror(error.errno or 0)})"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Guards standard output and error, and gives those that were closed at the start a file."""
    _Output.ends = True
    _open_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" for what its encoding lacks, such as Δ
            if stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _guard(stream))
    try:
        yield
    finally:
        try:
            sys.stdout.flush()  # an error at the interpreter's end would be its status 120
        finally:
            go_on()


def go_on() -> None:
    """From here on the command works on when nobody reads its standard output."""
    _Output.ends = False


def _guard(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Output(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_closed() -> None:
    """Else the next file that is opened is standard output, and what children print goes there."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
