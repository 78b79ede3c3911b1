"""From problem sets to batches of prompts.

problems is the table of problem sets (sets/), whose published files files/ downloads, checks and
reads. schedule chooses the problems of each batch, pipeline tokenises and pads them. sft/ turns
documents into rows for supervised fine-tuning, repair/ makes a stand-in for MBPP-R.
"""
