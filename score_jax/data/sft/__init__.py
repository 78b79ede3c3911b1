"""Supervised fine-tuning on documents: a problem with its attempts, all given.

filters chooses which sampled episodes become documents (STaR, Pair-SFT). documents packs documents
into the rows of a Batch.
"""
