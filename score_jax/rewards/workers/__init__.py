"""Worker processes for grading that may hang or crash, and are killed at a deadline.

deadlines asks questions of a pool of workers, which spawner forks. per_process keeps one pool, or
one sandbox, for each process that grades.
"""
