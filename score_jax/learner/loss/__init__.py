"""Log-probs of tokens, entropy and loss, without logits for a whole batch.

token_logprobs is the interface; vocab_chunks takes the gradient one chunk of tokens at a time;
split_vocab computes with a head whose vocabulary is split over devices.
"""
