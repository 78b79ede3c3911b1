"""Where the batches of a stage come from.

episodes samples a step's problems and grades them (RL); documents learns texts as they stand (SFT);
collected samples documents, filters and keeps them, and then learns them (STaR, Pair-SFT).
"""
