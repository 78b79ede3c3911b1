"""--mode=plan: whether a config fits a TPU slice or GPUs, and what bounds it, without the hardware.

shapes describes the arrays, working and estimate add them up, advise tries other settings, compiled
asks XLA's compiler for TPUs (read by hlo), bounds has the least times, chips knows the hardware,
table prints, plan does one after the other.
"""
