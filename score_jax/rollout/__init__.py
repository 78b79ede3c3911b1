"""Sampling: prompts -> episodes, all attempts in one decode loop.

episode is the interface; slots is the decode loop, in which a finished sample frees its slot for
the next; sampling draws tokens; contexts makes prompts from finished attempts.
"""
