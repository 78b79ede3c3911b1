"""Grading: a text and its gold -> a reward with its reason. Imports no jax.

grader sends each problem to its grader: answers/ compares values, programs/ runs tests in sandbox/.
terms adds up several rewards, functions calls those of the user's own (serving in their processes).
Algebra and such functions run in workers/, processes that can be killed. selective reads the
verdict with which a later attempt may begin.
"""
