"""The transformer as pure functions, and its weights.

families says how the open families differ, transformer computes (attention, rope, lowrank), cache
and cache_layouts hold keys and values between decode steps. weights loads any source, through
files/. published has shapes of models whose weights are not at hand.
"""
