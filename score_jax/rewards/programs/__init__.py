"""Grades a program against its tests.

extract finds the code in a text. grade runs the program in it with the tests, in rewards/sandbox,
and returns the reward and its reason.
"""

from score_jax.rewards.programs.grade import grade_program as grade_program
from score_jax.rewards.programs.grade import grade_text as grade_text
