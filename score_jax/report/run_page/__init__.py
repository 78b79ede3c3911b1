"""One run: the page index.html, plots as PNG, and summary.json.

contents reads a work directory; page puts the result into assets/page.html, within frame.html, and
the scripts in assets/ show it; plots draws it. summary gathers the evaluations. __main__ is the
command.
"""
