"""SCoRe (arXiv 2409.12917) in JAX: language models that correct their own first answer."""
