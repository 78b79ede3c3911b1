"""Worked examples of what users add to the package; run them from the repository."""
