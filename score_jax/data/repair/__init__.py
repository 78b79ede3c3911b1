"""A labelled stand-in for MBPP-R, which is not public: wrong programs to be repaired.

attempts is the command and the problem set; mutate makes a right program wrong.
"""
