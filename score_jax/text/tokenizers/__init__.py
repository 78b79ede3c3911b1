"""The kinds of tokenizer, and the files they come in.

base says what a tokenizer is. bytelevel (byte-level BPE and any tokenizer.json) and pieces
(SentencePiece) make one; sidecar finds special tokens and the chat template in the files beside it.
gguf_metadata reads the vocabulary in a .gguf, gguf_tokenizer writes it as a tokenizer.json.
"""
