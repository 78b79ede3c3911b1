"""The machine that a run uses: devices, processes, compiled programs, memory, hangs.

hosts joins the processes of a run, sharding splits arrays over devices, compiles reports late
recompilations, program_cache keeps compiled programs whole, signals lets a run save and stop,
watchdog ends a phase that hangs, heap keeps freed memory pages. peaks has speeds of devices, and
topology describes TPUs to compile for.
"""
