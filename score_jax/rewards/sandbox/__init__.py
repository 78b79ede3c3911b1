"""Runs programs that a model wrote where they can reach nothing.

start is the front, called by the trainer. It starts one scheduler process, which runs programs
under their deadlines: each program in a guest process that forkserver forks and confines, its tests
in a tester_process (tester), which speaks with the guest by protocol. self_test tries escapes on
this machine before the first program. linux/ is all that is Linux.
"""
