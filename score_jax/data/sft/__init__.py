"""Supervised fine-tuning on documents: a problem with its attempts, all given.

solutions makes documents of the problems' own solutions (a warm start). filters chooses which
sampled episodes become documents (STaR, Pair-SFT). documents packs documents into the rows of a
Batch.
"""
