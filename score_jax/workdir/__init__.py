"""What a run writes into its work directory and shows while it runs.

named refuses names that can be no folder's, settings_check a folder of other settings, lock a
second run at the same time. runlog writes metrics and transcripts; it uses events for TensorBoard,
progress for the terminal and wandb_run for Weights & Biases. alarms finds runs that fail.
"""
