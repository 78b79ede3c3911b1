"""Shapes of published models, for planning and benchmarks without their weights.

Each holds the keys of the model's config.json that differ from the defaults in `families.FAMILIES`.
"""

from typing import Any

_GEMMA2_2B = {
    "model_type": "gemma2",
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
}
_GEMMA2_9B = _GEMMA2_2B | {
    "hidden_size": 3584,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
}
_LLAMA31_8B = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
_MISTRAL_7B = {
    "model_type": "mistral",
    "vocab_size": 32_768,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 14_336,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000.0,
    "sliding_window": None,
}
_SMOLLM3_3B = {
    "model_type": "smollm3",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "intermediate_size": 11_008,
    "max_position_embeddings": 65_536,
    "rope_theta": 5_000_000.0,
}
_GEMMA3_4B = {
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "num_hidden_layers": 34,
    "intermediate_size": 10_240,
    "sliding_window": 1024,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b-it": _GEMMA2_2B,
    "google/gemma-2-2b": _GEMMA2_2B,
    "google/gemma-2-9b-it": _GEMMA2_9B,
    "google/gemma-2-9b": _GEMMA2_9B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31_8B,
    "meta-llama/Llama-3.1-8B": _LLAMA31_8B,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL_7B,
    "HuggingFaceTB/SmolLM3-3B": _SMOLLM3_3B,
    "google/gemma-3-4b-it": _GEMMA3_4B,
    "google/gemma-3-4b-pt": _GEMMA3_4B,
}
