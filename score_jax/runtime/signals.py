"""The signals that ask a run to stop: Ctrl-C, SIGTERM, a closed terminal, SIGUSR1 of a cluster.

    with Signals() as signals:      in the main thread; the first signal raises `Stopped`
        signals.asked()             -> whether one came; from here on it is only noted
        signals.noted()             the same question, noted from now on
    begun("compile"), ended(…)      around what cannot be interrupted and may take minutes: the line
                                    that answers a signal names it

A second signal ends the process as if there were no handler, even during such a call: a thread of
its own reads what the interpreter's own handler writes for each signal. A signal that was ignored
when the program began stays so, as under nohup. Imports no jax: jax takes seconds.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_INHERITED = (signal.SIGINT, signal.SIGHUP)  # ignored by shells for what shall outlive them
# A terminal that closes sends SIGHUP itself, and its shell once more: that is one request.
ONE_REQUEST_SEC = 0.25

_under_way: list[str] = []


class Stopped(KeyboardInterrupt):
    """A signal came where there is nothing to save."""


def begun(what: str) -> None:
    """Says that the main thread is in a call that Python cannot interrupt."""
    _under_way[:] = [what]


def ended(what: str) -> None:
    """Says that this call has returned."""
    if what in _under_way:
        _under_way.remove(what)


class Signals:
    """Handles the signals of STOPPING inside its `with` block; see the head of the file.

    Outside the main thread, where Python cannot, it handles none.
    """

    def __init__(self) -> None:
        self.came = ""  # the name of the first signal
        self._came_sec = 0.0
        self._raises, self._notes, self._sent_again = True, False, False
        self._before: dict[int, object] = {}
        self._former_hook = sys.unraisablehook

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        ignored = {n for n in _INHERITED if signal.getsignal(n) == signal.SIG_IGN}
        self._before = {n: signal.getsignal(n) for n in STOPPING if n not in ignored}
        read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._former_fd = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        self._former_hook, sys.unraisablehook = sys.unraisablehook, self._raise_again
        self.handle()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as getsignal returned it
        signal.set_wakeup_fd(self._former_fd)
        sys.unraisablehook = self._former_hook
        os.close(self._written)  # ends the thread

    def handle(self) -> None:
        """Handles the signals, again where something else took one over.

        That are jax.distributed, and the TPU's compiler, which makes its process ignore SIGHUP.
        """
        for number in self._before:
            signal.signal(number, self._on_signal)

    def asked(self) -> bool:
        """Whether a signal has come; from here on signals raise nothing.

        A run asks when there is something to save. Until then a signal ends it at once.
        """
        self._raises, self._notes = False, True
        if threading.current_thread() is threading.main_thread():
            self.handle()  # a program may have been compiled since
        return bool(self.came)

    def noted(self) -> Callable[[], bool]:
        """`asked`, once it was asked: of several processes, none must end before they agree."""
        self.asked()
        return self.asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.came = self.came or signal.Signals(number).name  # the thread may be late
        if self._raises:
            self._raises = False
            raise Stopped(self.came)

    def _raise_again(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Python drops what is raised in a callback, such as jax's of the garbage collector."""
        if not issubclass(dropped.exc_type, Stopped):
            self._former_hook(dropped)
            return
        self._raises, self._sent_again = True, True
        main, number = threading.main_thread().ident, signal.Signals[self.came]
        # A little later: at once it would be raised in here.
        threading.Timer(0.05, signal.pthread_kill, (main, number)).start()

    def _listen(self, read: int) -> None:
        with os.fdopen(read, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in self._before:
                    self._note(number[0])

    def _note(self, number: int) -> None:
        if self._sent_again:
            self._sent_again = False
            return
        now = time.monotonic()
        name = signal.Signals(number).name
        if not self._came_sec:
            self.came, self._came_sec = self.came or name, now
            if _under_way or self._notes:
                when = f"after this {_under_way[0]}" if _under_way else "as soon as all is saved"
                print(
                    f"score_jax: {name}: stopping {when}; a second signal ends the process at "
                    "once.",
                    file=sys.stderr,
                    flush=True,
                )
        elif now - self._came_sec > ONE_REQUEST_SEC:
            _die_of(number)


def _die_of(number: int) -> None:
    """Ends this process as the signal does where nobody handles it; from any thread.

    signal.signal works in the main thread only, which may be in a call that takes minutes.
    """
    libc_signal = ctypes.CDLL(None).signal
    libc_signal.argtypes, libc_signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc_signal(number, None)  # SIG_DFL
    os.kill(os.getpid(), number)
