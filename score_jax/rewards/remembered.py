"""Verdicts that are expensive to reach, so that the same question is decided once."""

from collections.abc import Collection, Hashable


class Remembered:
    """The reasons of earlier questions; the oldest are dropped first. Usable from any thread."""

    def __init__(self, entries: int, reasons: Collection[str] | None = None):
        """reasons: those to remember, None for all. "timeout" depends on the machine's load."""
        self._entries = entries
        self._reasons = None if reasons is None else frozenset(reasons)
        self._reason_of: dict[Hashable, str] = {}
        self.get = self._reason_of.get
        self.clear = self._reason_of.clear

    def add(self, question: Hashable, reason: str) -> None:
        """Remembers the reason if it is one of those to remember."""
        if self._reasons is not None and reason not in self._reasons:
            return
        # Threads may race here; at worst an entry is dropped early or decided twice.
        while len(self._reason_of) >= self._entries:
            self._reason_of.pop(next(iter(self._reason_of), question), None)
        self._reason_of[question] = reason
