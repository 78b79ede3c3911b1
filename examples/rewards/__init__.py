"""Reward functions, for `--config.rewards.function=examples.rewards.FILE:FUNCTION`."""
