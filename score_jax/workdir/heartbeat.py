"""A line every half minute while nothing else is said, so that a long step is no silent one.

heartbeat = Heartbeat(say)
before = heartbeat.doing("rollout, step 3 of stage1")
heartbeat.spoke()          something else was said: half a minute from now

still at work: rollout, step 3 of stage1, 1:15 so far
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

QUIET_SEC = 25.0  # what says it checks now and then, so that silence stays below half a minute


class Heartbeat:
    """Says what is being done; `close` ends its thread."""

    def __init__(self, say: Callable[[str], None], doing: str, quiet_sec: float | None = None):
        self._say = say
        self._quiet_sec = QUIET_SEC if quiet_sec is None else quiet_sec
        self._doing, self._since = doing, time.monotonic()
        self._spoke = self._since
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._thread.start()

    def doing(self, what: str) -> str:
        """Sets what is being done from now on, "" to say nothing; returns what was before."""
        before, self._doing, self._since = self._doing, what, time.monotonic()
        return before

    def spoke(self) -> None:
        """Something else was said."""
        self._spoke = time.monotonic()

    def close(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._quiet_sec)):
            now = time.monotonic()
            if self._doing and now - self._spoke >= self._quiet_sec:
                minutes, seconds = divmod(round(now - self._since), 60)
                self._spoke = now
                self._say(f"still at work: {self._doing}, {minutes}:{seconds:02} so far")


@contextlib.contextmanager
def beating(say: Callable[[str], None], doing: str) -> Iterator[None]:
    """While the body runs, which says nothing itself."""
    heartbeat = Heartbeat(say, doing)
    try:
        yield
    finally:
        heartbeat.close()
