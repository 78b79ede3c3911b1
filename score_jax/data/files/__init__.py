"""Published files of problem sets, and TFDS data sets prepared from them.

published checks that a file has the published content. prepared reads a TFDS data set, and first
prepares it if needed, with one of the builders in builders or with TFDS's own.
"""
