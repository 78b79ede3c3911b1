"""Problems, and the order in which they are met.

problems is the table of problem sets (sets/), which are read from files/; schedule and pipeline
put them in the order of a stage and make padded prompts of them. sft/ makes documents to learn as
they stand, repair/ writes stand-ins of MBPP-R.
"""
