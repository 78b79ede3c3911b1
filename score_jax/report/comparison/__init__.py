"""Many runs: RESULTS.md, with tables, figures and claims over seeds and recipes.

finished reads the runs; tables, figures and claims each make one kind of content; results puts it
together. results and tables are commands.
"""
