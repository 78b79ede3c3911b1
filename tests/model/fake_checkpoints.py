"""Tiny random Llama checkpoints, written and run by transformers: the other side of comparisons."""

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


def huggingface_model(**changes: Any) -> Any:
    """A transformers model in float32; norm weights are random too, as trained ones are."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(SHAPE | changes))
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


def huggingface_logits(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(tokens_BT, dtype=torch.long)).logits.float().numpy()


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def tokens(rows: int, columns: int, vocab_size: int = SHAPE["vocab_size"]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, vocab_size, (rows, columns), dtype=np.int32)
