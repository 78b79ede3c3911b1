"""SCoRe (arXiv 2409.12917) in JAX: language models that correct their own first answer."""

__version__ = "0.1.0"
