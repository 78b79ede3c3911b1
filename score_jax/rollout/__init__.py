"""Sampling: prompts -> episodes, all attempts in one decode loop.

episode is the front; slots is the loop, in which rows that end give their slot to the next;
sampling draws tokens; contexts makes prompts of finished attempts.
"""
