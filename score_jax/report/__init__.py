"""Reports for people: run_page/ shows one run, comparison/ compares finished runs.

Both read the files in work directories, so that no run has to be in progress.
"""
