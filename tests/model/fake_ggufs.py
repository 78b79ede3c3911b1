"""GGUF files of transformers' models, as llama.cpp's convert_hf_to_gguf.py writes them.

Names of tensors and keys are those of the gguf package; the order of rotary pairs, Gemma's offset
and the keys of each family are written down here, independently of what the package reads.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Converted by LlamaModel or a class that inherits from it: rotary pairs are put side by side.
PAIRED = ("llama", "mistral", "granite", "smollm3")
ARCHITECTURE = {"mistral": "llama", "gemma3_text": "gemma3"}


def write(path: Path, model: Any, family: str, **keys: float) -> str:
    """Writes the model's float32 weights.

    keys: further metadata of the architecture, in place of what the conversion would state; a dot
      is written as two underscores.
    """
    c = model.config.to_dict()
    arch = ARCHITECTURE.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_vocab_size(c["vocab_size"])
    head = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    if c.get("head_dim"):
        writer.add_key_length(head)
        writer.add_value_length(head)
    rotary = c["rope_parameters"]
    if family == "gemma3_text":
        writer.add_float32("gemma3.rope.freq_base_swa", rotary["sliding_attention"]["rope_theta"])
        rotary = rotary["full_attention"]
    writer.add_rope_freq_base(rotary["rope_theta"])
    writer.add_rope_dimension_count(int(head * rotary.get("partial_rotary_factor", 1.0)))
    if family in ("gemma2", "gemma3_text", "phi3", "mistral"):
        writer.add_sliding_window(c["sliding_window"] or 0)
    if family == "gemma3_text":
        writer.add_sliding_window_pattern([k == "sliding_attention" for k in c["layer_types"]])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(c["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(c["final_logit_softcapping"])
    if family == "granite":
        writer.add_attention_scale(c["attention_multiplier"])
        writer.add_embedding_scale(c["embedding_multiplier"])
        writer.add_residual_scale(c["residual_multiplier"])
        writer.add_logit_scale(c["logits_scaling"])
    _scaling(writer, arch, rotary, c, keys)
    for key, value in keys.items():
        writer.add_float32(f"{arch}.{key.replace('__', '.')}", value)
    _tensors(writer, model, family, arch, c)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def _scaling(writer, arch: str, rotary: dict, c: dict, keys: dict) -> None:
    kind = rotary["rope_type"]
    if keys or kind == "default":
        return
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rotary["factor"])
    if kind in ("yarn", "longrope"):
        original = rotary["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
    if kind == "longrope":
        ratio = c["max_position_embeddings"] / original
        lengthened = np.sqrt(1 + np.log(ratio) / np.log(original))
        writer.add_rope_scaling_attn_factors(rotary.get("attention_factor") or float(lengthened))
        for name in ("long", "short"):
            table = np.array(rotary[f"{name}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", table)


def _tensors(writer, model: Any, family: str, arch: str, c: dict) -> None:
    number = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, c["num_hidden_layers"])
    for name, tensor in model.state_dict().items():
        value = tensor.float().numpy()
        if name == "lm_head.weight" and c["tie_word_embeddings"]:
            continue
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        count = next((c[key] for part, key in heads.items() if f".{part}." in name), 0)
        if count and family in PAIRED:
            value = value.reshape(count, 2, len(value) // count // 2, -1).swapaxes(1, 2)
            value = value.reshape(tensor.shape)
        if name.endswith("norm.weight") and family.startswith("gemma"):
            value = value + np.float32(1.0)
        theirs = names.get_name(name, (".weight", ".bias"))
        assert theirs, name
        writer.add_tensor(theirs, np.ascontiguousarray(value))
