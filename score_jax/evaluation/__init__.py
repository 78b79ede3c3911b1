"""What is measured of a model: greedy evaluation, sampled evaluation, inference scaling.

evaluate decodes and grades; metrics, sampled and breakdown work out what is reported, with
intervals; edits compares two attempts, shading colours their tokens; scaling votes over samples.
"""
