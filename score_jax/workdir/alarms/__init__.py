"""Alarms: signs in a run's numbers that training goes wrong, and what to do about each.

    of_steps(rows, dtype, …) -> list[Alarm]       rows of metrics.jsonl of one RL stage
    looked_at(rows) -> list                       those of them that of_steps needs
    of_base(base) -> list[Alarm]                  the base model's evaluation, before any RL step
    of_evaluations(base, after) -> list[Alarm]    two evaluations with their intervals
    Standing(say)                                 says what is raised, and what has cleared

steps.py has the rules of steps, evaluations.py those of evaluations, and evidence.py decides
whether a difference is more than sampling error.
"""

from score_jax.workdir.alarms.alarm import Alarm as Alarm
from score_jax.workdir.alarms.alarm import Standing as Standing
from score_jax.workdir.alarms.evaluations import of_base as of_base
from score_jax.workdir.alarms.evaluations import of_evaluations as of_evaluations
from score_jax.workdir.alarms.evidence import BEGIN as BEGIN
from score_jax.workdir.alarms.evidence import RECENT as RECENT
from score_jax.workdir.alarms.steps import looked_at as looked_at
from score_jax.workdir.alarms.steps import of_steps as of_steps
