"""Tiny random checkpoints of every family, written and run by transformers, to compare with."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPE: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 50,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,  # large, so that attention is far from uniform
    "tie_word_embeddings": False,
}


# What the families' configurations need besides: windows shorter than the rows of most tests, small
# caps, and a scale of scores that is not the head width's.
OF_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 6},
    "mistral": {"sliding_window": 4, "head_dim": 6},
    "phi3": {
        "sliding_window": 5,
        "pad_token_id": 0,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.5,
        },
    },
    "olmo2": {"pad_token_id": 0},
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.2,
        "logits_scaling": 1.5,
    },
    "smollm3": {"pad_token_id": 0, "no_rope_layers": [1, 0, 1]},
    "gemma": {"head_dim": 10},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 4,
        "query_pre_attn_scalar": 12,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "head_dim": 8,
        "sliding_window": 3,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    },
}
CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "olmo2": "Olmo2",
    "granite": "Granite",
    "smollm3": "SmolLM3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
}


def huggingface_class(family: str) -> Any:
    """The class of a family's configuration in transformers."""
    return getattr(pytest.importorskip("transformers"), CLASSES[family] + "Config")


def huggingface_config(family: str = "llama", **changes: Any) -> Any:
    """A tiny configuration of transformers."""
    # transformers completes the dicts that it is given.
    return huggingface_class(family)(**copy.deepcopy(SHAPE | OF_FAMILY[family] | changes))


def huggingface_model(family: str = "llama", **changes: Any) -> Any:
    """A transformers model in float32; norm weights and biases are random too, as trained ones."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = huggingface_config(family, **changes)
    torch.set_num_threads(1)  # several wait for each other far longer than so little takes
    torch.manual_seed(0)
    name = CLASSES[family].removesuffix("Text") + "ForCausalLM"
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(-0.5, 0.5).add_(0.0 if family.startswith("gemma") else 1.0)
            elif name.endswith("bias"):
                weight.uniform_(-0.5, 0.5)
    return model


def huggingface_logits(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(tokens_BT, dtype=torch.long)).logits.float().numpy()


def greedy(model: Any, tokens_BT: np.ndarray, length: int) -> np.ndarray:
    """Rows of `length` tokens: those given, and what the model likes best after them."""
    while tokens_BT.shape[1] < length:
        choice_B1 = huggingface_logits(model, tokens_BT)[:, -1:].argmax(-1)
        tokens_BT = np.concatenate([tokens_BT, choice_B1.astype(np.int32)], axis=1)
    return tokens_BT


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def tokens(rows: int, columns: int, vocab_size: int = SHAPE["vocab_size"]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, vocab_size, (rows, columns), dtype=np.int32)
