"""A few runs side by side, on one page: settings that differ, curves, paired differences, problems.

contents reads the work directories; page puts the result into assets/, with the charts and
transcripts of run_page. __main__ is the command. Tables over many seeds are in comparison/.
"""
