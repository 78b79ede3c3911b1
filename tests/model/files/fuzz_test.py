"""Damaged model files: every one of them loads or is refused in words, and never otherwise."""

import contextlib
import json

import gguf
import numpy as np
import pytest
import safetensors.numpy

from score_jax.model import weights
from score_jax.problem import InputError
from score_jax.text import tokenizer
from tests import mutator

# Random scales may be infinite, or no numbers.
pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")

D, F, V = 32, 32, 40
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": V,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}
SHAPES = {
    "model.embed_tokens": ("token_embd", (V, D)),
    "model.norm": ("output_norm", (D,)),
    "model.layers.0.input_layernorm": ("blk.0.attn_norm", (D,)),
    "model.layers.0.post_attention_layernorm": ("blk.0.ffn_norm", (D,)),
    "model.layers.0.self_attn.q_proj": ("blk.0.attn_q", (D, D)),
    "model.layers.0.self_attn.k_proj": ("blk.0.attn_k", (D // 2, D)),
    "model.layers.0.self_attn.v_proj": ("blk.0.attn_v", (D // 2, D)),
    "model.layers.0.self_attn.o_proj": ("blk.0.attn_output", (D, D)),
    "model.layers.0.mlp.gate_proj": ("blk.0.ffn_gate", (F, D)),
    "model.layers.0.mlp.up_proj": ("blk.0.ffn_up", (F, D)),
    "model.layers.0.mlp.down_proj": ("blk.0.ffn_down", (D, F)),
}


def values(shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def read(source) -> object:
    config, params = weights.load(str(source), put=lambda path, value: np.asarray(value))
    return config, params


def gguf_bytes(path, kind: gguf.GGMLQuantizationType) -> bytes:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(F)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(V)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([chr(33 + i) for i in range(V)])
    writer.add_token_types([1] * V)
    writer.add_token_merges(["! #"])
    writer.add_eos_token_id(1)
    for name, shape in SHAPES.values():
        if len(shape) == 2:
            data = gguf.quantize(values(shape), kind)
            writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", values(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def fuzz_gguf(folder, seconds: float) -> int:
    kinds = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0)
    seeds = [gguf_bytes(folder / f"{kind.name}.gguf", kind) for kind in kinds]
    read(folder / "F32.gguf")  # the seed itself loads
    path = folder / "m.gguf"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        for part in (read, tokenizer.load):
            with contextlib.suppress(InputError):
                part(str(path))

    return mutator.survives(load, seeds, seconds)


def fuzz_safetensors(folder, seconds: float) -> int:
    tensors = {f"{name}.weight": values(shape) for name, (_, shape) in SHAPES.items()}
    (folder / "config.json").write_text(json.dumps(LLAMA))
    path = folder / "model.safetensors"
    seeds = [safetensors.numpy.save(tensors)]
    path.write_bytes(seeds[0])
    read(folder)

    def load(data: bytes) -> None:
        path.write_bytes(data)
        read(folder)

    return mutator.survives(load, seeds, seconds, (InputError,))


def test_a_damaged_gguf_file_is_refused_in_words_or_loads(tmp_path):
    assert fuzz_gguf(tmp_path, 2.0) > 20


def test_a_damaged_safetensors_file_is_refused_in_words_or_loads(tmp_path):
    assert fuzz_safetensors(tmp_path, 2.0) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fuzz", [fuzz_gguf, fuzz_safetensors])
def test_ten_minutes_of_damaged_model_files(fuzz, tmp_path):
    print(fuzz.__name__, fuzz(tmp_path, 600.0), "inputs")
