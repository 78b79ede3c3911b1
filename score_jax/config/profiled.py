"""Which steps of a run are profiled: the text of `logging.profile`."""

import re
from typing import NamedTuple

from score_jax.config.settings import Settings
from score_jax.problem import InputError, nearest


class Profiled(NamedTuple):
    """Steps `first` to `last` of a stage."""

    stage: str
    first: int
    last: int


def profiled(text: str) -> Profiled | None:
    """Reads STAGE:STEP+N, or STAGE:STEP for one step; None for an empty text.

    Raises: InputError for any other text.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\w+):(\d+)(?:\+(\d+))?", text)
    first, steps = (int(found[2]), int(found[3] or 1)) if found else (0, 0)
    if not found or not first or not steps:
        raise InputError(
            f"config.logging.profile={text!r} is not of the form STAGE:STEP+N, such as "
            "'stage1:3+2' for steps 3 and 4 of stage1; steps count from 1. Correct it, or leave "
            "it empty to profile nothing."
        )
    return Profiled(found[1], first, first + steps - 1)


def check(s: Settings) -> None:
    """Raises: InputError where the recipe lacks the stage, or the stage the steps."""
    wanted = profiled(s.logging.profile)
    if not wanted:
        return
    if wanted.stage not in s.recipe:
        raise InputError(
            f"config.logging.profile={s.logging.profile!r} names a stage '{wanted.stage}' that "
            f"config.recipe lacks. {nearest(wanted.stage, s.recipe)}"
        )
    steps = s.stages[wanted.stage].steps
    if wanted.last > steps:
        raise InputError(
            f"config.logging.profile={s.logging.profile!r} ends at step {wanted.last}, and "
            f"config.stages.{wanted.stage}.steps={steps}. Name steps from 1 to {steps}."
            if steps
            else f"config.logging.profile={s.logging.profile!r} names a stage without steps: "
            f"config.stages.{wanted.stage}.steps=0. Name another stage."
        )
