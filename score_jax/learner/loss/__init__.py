"""Log-probs of tokens, entropy and KL, without logits for a whole batch.

token_logprobs is the front; vocab_chunks takes the gradient a chunk of tokens at a time;
split_vocab computes with a head whose vocabulary is split over devices.
"""
