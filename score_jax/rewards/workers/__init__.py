"""Processes for grading that may hang or crash, and so are killed at a deadline.

deadlines puts questions to a pool of processes, which spawner forks; per_process keeps one pool for
each process that grades.
"""
