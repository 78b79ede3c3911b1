"""The update: a batch of episodes with rewards -> new params.

step is the update of one step, optimizer and lora say what is trained, micro_batches splits the
rows, loss/ computes log-probs without logits of the whole batch. adapter_files writes LoRA's
adapters in PEFT's layout.
"""
