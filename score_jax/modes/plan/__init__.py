"""--mode=plan: whether a config fits a TPU slice, and what bounds it, without the hardware.

shapes describes the arrays, estimate adds them up, compiled asks XLA's compiler (read by hlo),
chips knows the hardware, table prints, plan does one after the other.
"""
