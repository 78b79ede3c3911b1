"""One file per problem set; each turns the rows of its files into Problems.

jsonl reads JSON lines, both a user's own problems and the lines of published files. own_tfds reads
any TFDS data set. arithmetic and running_total generate their problems.
"""
