"""Grades a stated answer against its gold: right if both have the same value.

grade calls the others in the order of the data. extract finds the answer in a text. spelling brings
it into one form, and parse reads its value, with numbers for numbers and units. compare decides, or
leaves the decision to algebra (sympy, in a process that can be killed); limits refuses what would
cost too much. voting gives the form of an answer in which equal answers can be counted.
"""

from score_jax.rewards.answers.grade import grade_answer as grade_answer
from score_jax.rewards.answers.grade import grade_answers as grade_answers
from score_jax.rewards.answers.grade import grade_leniently as grade_leniently
