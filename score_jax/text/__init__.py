"""Text to token ids and back.

tokenizer loads any source's tokenizer (tokenizers/), templates renders the turns of a chat, prompts
holds the texts of the tasks.
"""
