"""Runs programs that a model wrote in processes that can reach nothing.

The trainer calls start, which launches one scheduler process. The scheduler runs each program in a
guest process that forkserver forks and confines, and its tests in a tester_process (tester), which
talks to the guest by protocol; fairness shares the cores and keeps deadlines. In the guest, choose
finds the program among the code of a text, and script runs one by its standard input. packages are
what programs may import. self_test attacks the sandbox before its first program. scarce waits where
the machine has no process left. linux/ has what only Linux has.
"""
