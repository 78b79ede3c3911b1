"""Grades a stated answer against its gold: right where both have the same value.

In the order of the data: extract finds the answer in a text, spelling and numbers make two
spellings of one value equal, parse reads values, limits refuses what would cost too much, compare
decides, and algebra asks sympy in a process that can be killed. grade puts them in a row; voting
counts answers of one value.
"""

from score_jax.rewards.answers.grade import grade_answer as grade_answer
from score_jax.rewards.answers.grade import grade_answers as grade_answers
