"""Grades a program against its tests, in the sandbox.

extract finds the program in a text, grade has it run (rewards/sandbox) and names the outcome.
"""

from score_jax.rewards.programs.grade import grade_program as grade_program
from score_jax.rewards.programs.grade import grade_text as grade_text
