"""Files of problems as they are published, and TFDS data sets prepared from them.

published reads the archives and lines of each set's own release; prepared makes a TFDS folder of
them with builders, and reads it.
"""
