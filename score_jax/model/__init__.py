"""The transformer as pure functions, and its weights.

families describes how the open families differ, transformer computes (with attention, rope and
lowrank), cache and cache_layouts hold keys and values between decode steps. weights loads any
source, through files/. published lists shapes of models for planning without their weights.
"""
