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
_GEMMA2_27B = _GEMMA2_2B | {
    "hidden_size": 4608,
    "num_hidden_layers": 46,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "intermediate_size": 36_864,
    "query_pre_attn_scalar": 144,
}
_GEMMA1_2B = {
    "model_type": "gemma",
    "vocab_size": 256_000,
    "hidden_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "intermediate_size": 16_384,
    "max_position_embeddings": 8192,
}
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
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
    "rope_scaling": _LLAMA3_SCALING | {"factor": 8.0},
}
_LLAMA32_1B = _LLAMA31_8B | {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "intermediate_size": 8192,
    "rope_scaling": _LLAMA3_SCALING | {"factor": 32.0},
    "tie_word_embeddings": True,
}
_SMOLLM2_135M = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
_QWEN25_05B = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
_QWEN3_06B = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
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
_GEMMA3_270M = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "hidden_size": 640,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 2048,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b-it": _GEMMA2_2B,
    "google/gemma-2-2b": _GEMMA2_2B,
    "google/gemma-2-9b-it": _GEMMA2_9B,
    "google/gemma-2-9b": _GEMMA2_9B,
    "google/gemma-2-27b-it": _GEMMA2_27B,
    "google/gemma-2-27b": _GEMMA2_27B,
    "google/gemma-1.1-2b-it": _GEMMA1_2B,
    "google/gemma-2b": _GEMMA1_2B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31_8B,
    "meta-llama/Llama-3.1-8B": _LLAMA31_8B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA32_1B,
    "meta-llama/Llama-3.2-1B": _LLAMA32_1B,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-135M": _SMOLLM2_135M,
    "Qwen/Qwen2.5-0.5B-Instruct": _QWEN25_05B,
    "Qwen/Qwen2.5-0.5B": _QWEN25_05B,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": _QWEN25_05B,
    "Qwen/Qwen2.5-Coder-0.5B": _QWEN25_05B,
    "Qwen/Qwen3-0.6B": _QWEN3_06B,
    "Qwen/Qwen3-0.6B-Base": _QWEN3_06B,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL_7B,
    "HuggingFaceTB/SmolLM3-3B": _SMOLLM3_3B,
    "google/gemma-3-270m-it": _GEMMA3_270M,
    "google/gemma-3-270m": _GEMMA3_270M,
    "google/gemma-3-4b-it": _GEMMA3_4B,
    "google/gemma-3-4b-pt": _GEMMA3_4B,
}
