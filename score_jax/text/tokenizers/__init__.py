"""The kinds of tokenizer, and the files they come in.

bytelevel (byte-level BPE) and pieces (SentencePiece) encode; gguf_metadata and gguf_tokenizer read
them from a .gguf, sidecar finds special tokens and the chat template beside a tokenizer.
"""
