"""Grading: a text and what it is held against -> a reward with its reason. No jax in here.

grader sends each problem to its grader: answers/ compares values, programs/ runs tests in sandbox/,
functions calls a reward function of the user's own. workers/ are the processes that algebra and
such functions run in, and are killed in. selective reads verdicts in an attempt.
"""
