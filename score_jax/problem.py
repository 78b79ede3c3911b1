"""What the host knows of a problem and of the verdict on an answer. Imports no jax.

Apart from structs.py, so that a grading worker process starts without loading jax.
"""

import dataclasses
import difflib
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem as the host knows it."""

    id: str  # unique within its data set, e.g. "gsm8k/test/17"
    prompt: str  # what the policy is asked, before any template
    gold: (
        str  # the right answer, in the grader's form; of a program its tests: see rewards/programs
    )
    grader: str = "answer"  # a key of rewards.grader.GRADERS
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)  # level, subject, …
    prompt_format: str = ""  # how this one is put to the model; empty: as the run's prompt says
    asked: str = ""  # the whole first turn, of a run whose prompt is a text with the row's fields
    # Where the instruction has fields of the row: the text before each later attempt, or one for
    # each; (): the run's own.
    instructions: tuple[str, ...] = ()
    first_attempt: str = ""  # given, not sampled: the policy continues after it and the instruction
    # A prompt that was written as messages: [{"role": …, "content": …}, …]; `prompt` is its last.
    messages: Sequence[Mapping[str, str]] = ()
    solution: str = ""  # a right and whole answer, which SFT can learn; empty: not known
    reference: str = ""  # of a program: one that passes its tests; checked before a run
    # The row of the user's own file, all of it, for reward functions.
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    where: str = dataclasses.field(default="", compare=False)  # "FILE, line 3"; empty: not known

    @property
    def system(self) -> str:
        """The system text of its own messages; empty: that of the run."""
        return next((m["content"] for m in self.messages if m["role"] == "system"), "")


@dataclasses.dataclass(frozen=True)
class Grade:
    """The verdict on one attempt."""

    reward: float  # finite; of answers and programs 1.0 if right, else 0.0
    reason: str  # "equal", "unequal", "no_answer", "truncated", "timeout", "refused", …

    @property
    def solved(self) -> bool:
        """Whether the attempt counts as right, in accuracies and filters."""
        return self.reward >= 1.0


LARGEST = 3e38  # of a setting or a reward: little less than the largest float32


class InputError(ValueError):
    """Bad settings or input files: what happened, why it matters, how to fix it; exit status 2."""


# Of an OSError: a disk, a quota or the largest file that is allowed is full.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MachineGone(OSError):
    """The machine no longer gives what a run needs; it is not the input's fault; exit status 74."""

    status = 74


LONGEST_NAME = 255  # bytes, of a name on any usual file system


def expanded(name: str | Path) -> Path:
    """The path with `~` expanded, which no shell does after a "=".

    Raises: InputError if there is no such user, or a file system can have no such name.
    """
    try:
        unfit = b"\0" in os.fsencode(name)
    except UnicodeEncodeError:
        unfit = True
    if unfit:
        raise InputError(f"{str(name)!a}: no file has such a character in its name. Name another.")
    path = os.path.expanduser(name)
    if path.startswith("~"):
        raise InputError(
            f"{name}: {Path(path).parts[0]} is the home folder of no user. Write the whole path."
        )
    if any(len(part) > LONGEST_NAME for part in os.fsencode(path).split(b"/")):
        raise InputError(
            f"{name!s:.60}… has a name of more than {LONGEST_NAME} bytes, which no file system "
            "takes. Shorten it."
        )
    return Path(path)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}."
