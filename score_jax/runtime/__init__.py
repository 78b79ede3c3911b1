"""The machine under a run: devices, hosts, compiled programs, memory, hangs.

hosts joins the processes of a run, sharding lays arrays over devices, compiles watches for late
recompilations, watchdog ends a phase that hangs, heap keeps freed memory, peaks and topology know
the hardware.
"""
