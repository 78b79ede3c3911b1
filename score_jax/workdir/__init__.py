"""What a run leaves in its work directory, and shows while it works.

settings_check refuses a folder of other settings, runlog writes metrics and transcripts, alarms
finds what goes wrong, progress draws the bar, wandb_run copies to Weights & Biases.
"""
