"""Reports for people: run_page/ shows one run, compare/ lays a few side by side, comparison/ makes
tables and RESULTS.md from many finished ones.

All read the files in work directories, so that no run has to be in progress.
"""
