"""A stand-in for MBPP-R, which is not public: wrong programs to repair, labelled as a stand-in.

attempts is the command that writes the file and the problem set that reads it. mutate makes wrong
versions of a right program.
"""
