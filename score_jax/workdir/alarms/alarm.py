"""An alarm, and which alarms of a stage stand: each is said once, and that it cleared."""

import dataclasses
from collections.abc import Callable, Iterable

QUIET = 5  # steps without an alarm until it counts as cleared: one at its limit comes and goes


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One alarm."""

    name: str  # the same in every step
    what: str  # what happened, with its number
    advice: str  # what it means and what to try


class Standing:
    """The alarms that stand in one place: a stage's steps, or the evaluations of a run."""

    def __init__(
        self, say: Callable[[str], None], before: Iterable[Alarm] = (), quiet: int = QUIET
    ):
        """Args:

        say: takes a line for the log.
        before: alarms that were said before a resume, and are not said again.
        quiet: how many times an alarm must be absent until it counts as cleared.
        """
        self._say, self._quiet = say, quiet
        self._absent = {alarm.name: (0, alarm) for alarm in before}  # how often in a row

    def update(self, where: str, found: Iterable[Alarm]) -> None:
        """What is found now: says what is new, and what has cleared."""
        now = {alarm.name: alarm for alarm in found}
        for name, alarm in now.items():
            if name not in self._absent:
                self._say(f"ALARM in {where}: {alarm.what}. {alarm.advice}")
            self._absent[name] = (0, alarm)
        for name in set(self._absent) - set(now):
            times, alarm = self._absent[name]
            self._absent[name] = (times + 1, alarm)
            if times + 1 >= self._quiet:
                del self._absent[name]
                self._say(f"CLEARED in {where}: no longer holds that {alarm.what}.")
