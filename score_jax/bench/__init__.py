"""`python -m score_jax.bench rollout|update|rewards`: tokens per second, memory, compile time.

workloads says what is run, rollout, update and rewards run it, timing repeats it in turn with other
programs, temporaries and flops read what XLA says of it.
"""
