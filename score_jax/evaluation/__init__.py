"""Evaluation of a model: greedy decoding, sampling, and inference-time scaling.

evaluate decodes and grades all problems; metrics, sampled and breakdown compute the numbers from
what was solved, with intervals. edits compares two attempts, shading gives the log-prob of each
token, scaling is the study of majority votes.
"""
