"""The update: a batch of episodes with rewards -> new params.

step is one update. optimizer has optimizers and schedules, lora the adapters, micro_batches splits
the rows into parts, loss/ computes log-probs and loss without logits of the whole batch.
adapter_files writes LoRA's adapters in PEFT's layout.
"""
