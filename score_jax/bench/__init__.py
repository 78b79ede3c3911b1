"""`python -m score_jax.bench rollout|update|rewards`: tokens per second, memory, compile time.

workloads defines what is run; rollout, update and rewards run it; timing times several programs in
turn; temporaries and flops say what takes the memory and the time.
"""
