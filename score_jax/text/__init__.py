"""Text to token ids and back.

tokenizer loads the tokenizer of a source, of one of the kinds in tokenizers/. templates turns the
problem, the instruction and the chat template into the ids between attempts: forms finds the chat
template, jinja runs it, frames cuts it. prompts holds the texts of the tasks.
"""
