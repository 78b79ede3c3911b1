"""Worker processes for grading that may hang or crash, and are killed at a deadline.

spawner forks them, pool keeps them. deadlines asks them questions of algebra, calls those of a
user's functions. per_process keeps one pool, or one sandbox, for each process that grades.
"""
