"""One run: summary.json, plots, and the page index.html.

contents gathers what the page shows from the work directory, page fills assets/page.html with it.
"""
