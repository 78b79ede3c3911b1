"""The Python interface: what `import score_jax as sj` offers, on the command line's functions."""
