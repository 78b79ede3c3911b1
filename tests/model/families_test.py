"""Models of every shape we know compute what transformers computes."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from score_jax.model import config_formats, gguf_shape, rope, transformer, weights
from score_jax.model.families import ModelConfig
from score_jax.problem import InputError
from tests.model import fake_checkpoints

LLAMA3: dict[str, float | str] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10_000.0,
}
GEMMA3_ROPE: dict[str, Any] = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
}
SHAPES: dict[str, tuple[str, dict[str, Any], int]] = {
    "llama, grouped heads, untied": ("llama", {}, 13),
    "llama, tied": ("llama", {"tie_word_embeddings": True}, 7),
    "llama, one head per key": ("llama", {"num_key_value_heads": 4}, 5),
    "llama, all heads share one key": ("llama", {"num_key_value_heads": 1}, 17),
    "llama, wide heads": ("llama", {"head_dim": 14, "num_attention_heads": 4}, 11),
    "llama, narrow heads, one layer": ("llama", {"head_dim": 2, "num_hidden_layers": 1}, 9),
    "llama, one token": ("llama", {}, 1),
    "llama, another rotary base": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        31,
    ),
    "llama, linear scaling": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}},
        31,
    ),
    "llama, llama3 scaling": ("llama", {"rope_parameters": LLAMA3}, 64),
    "qwen2, untied": ("qwen2", {}, 13),
    "qwen2, tied, all heads share one key": (
        "qwen2",
        {"tie_word_embeddings": True, "num_key_value_heads": 1},
        9,
    ),
    "qwen2, later layers slide": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        17,
    ),
    "qwen3, untied": ("qwen3", {}, 13),
    "qwen3, tied, one head per key": (
        "qwen3",
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
        7,
    ),
    "gemma, tied, all heads share one key": (
        "gemma",
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        11,
    ),
    "gemma, untied, one head per key": ("gemma", {"num_key_value_heads": 4}, 6),
    "gemma2, tied, windows crossed": ("gemma2", {}, 15),
    "gemma2, no caps, untied, row as long as the window": (
        "gemma2",
        {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
        },
        4,
    ),
    "gemma3, tied, windows crossed": ("gemma3_text", {}, 15),
    "gemma3, five local layers to a global one, two rotary bases, linear scaling": (
        "gemma3_text",
        {
            "num_hidden_layers": 7,
            "layer_types": None,
            "rope_parameters": GEMMA3_ROPE,
            "final_logit_softcapping": 3.0,
        },
        31,
    ),
    "gemma3, row within the window": ("gemma3_text", {"sliding_window": 30}, 9),
}


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_greedy_text_of_a_random_checkpoint_equal_those_of_transformers(name, tmp_path):
    family, changes, length = SHAPES[name]
    model = fake_checkpoints.huggingface_model(family, **changes)
    # The second half of the row is what transformers goes on with; where each of its tokens is
    # our first choice too, our own greedy text is the same.
    given = (length + 1) // 2
    tokens_BT = fake_checkpoints.greedy(model, fake_checkpoints.tokens(2, given), length)
    expected_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, tokens_BT)
    assert np.abs(expected_BTV).max() > 1  # else a tolerance of 1e-4 says little
    np.testing.assert_allclose(logits_BTV, expected_BTV, atol=1e-4, rtol=0)
    choice_BT = np.asarray(logits_BTV.argmax(-1))
    np.testing.assert_array_equal(choice_BT[:, given - 1 : -1], tokens_BT[:, given:])


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_survives_the_way_to_hugging_face_and_back(name):
    family, changes, _ = SHAPES[name]
    described = fake_checkpoints.huggingface_config(family, **changes).to_dict()
    config = config_formats.from_huggingface(described)
    assert config.family == family
    assert config_formats.from_huggingface(config_formats.to_huggingface(config)) == config


def test_a_config_of_transformers_4_means_the_same_as_one_of_5():
    shape = {**fake_checkpoints.SHAPE, "model_type": "llama"}
    scaling = {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    old = config_formats.from_huggingface(shape | {"rope_theta": 500.0, "rope_scaling": scaling})
    new = config_formats.from_huggingface(
        shape | {"rope_parameters": {**scaling, "rope_theta": 500.0}}
    )
    assert old == new
    assert old.rope_theta == 500.0
    assert old.head_width == 8  # hidden_size / num_attention_heads where nothing is said


def test_rotary_frequencies_equal_those_of_transformers():
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    transformers = pytest.importorskip("transformers")
    scaling = LLAMA3 | {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
    described = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        max_position_embeddings=131_072,
        rope_parameters=scaling,
    )
    expected, _ = functions["llama3"](described, "cpu")
    ours = rope.frequencies(config_formats.from_huggingface(described.to_dict()))
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)


def test_gguf_metadata_gives_the_shape():
    config = gguf_shape.from_gguf(GGUF, tied=True)
    assert config == ModelConfig(
        family="llama",
        vocab_size=3,
        layers=2,
        width=16,
        heads=4,
        kv_heads=2,
        head_width=4,
        mlp_width=24,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
        tied=True,
        max_positions=128,
    )


def test_the_frequency_table_of_a_gguf_gives_the_scaling_of_llama_3():
    scaling: dict[str, float | str] = {
        **LLAMA3,
        "original_max_position_embeddings": 8192,
        "factor": 32.0,
    }
    frequency = 10_000.0 ** (-np.arange(32) / 32)
    table = rope.divisors(frequency, scaling)
    found = gguf_shape.from_gguf(GGUF, rope_divisors=table).rope_scaling
    assert dict(found or ()) == {k: v for k, v in scaling.items() if k != "rope_theta"}
    with pytest.raises(InputError, match=r"rope_freqs.weight are not those of Llama 3"):
        gguf_shape.from_gguf(GGUF, rope_divisors=table**2)


GGUF: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 16,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.feed_forward_length": 24,
    "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
REFUSED_HUGGINGFACE: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "mamba"}, "'mamba'.*known: llama"),
    "no architecture": ({"model_type": None}, "unknown architecture None"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
    "biases": ({"attention_bias": True}, "attention_bias = True is not supported"),
    "no width": ({"hidden_size": None}, "hidden_size is missing"),
    "words for numbers": ({"vocab_size": "many"}, "vocab_size = 'many' must be one whole number"),
    "uneven groups": ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
    "odd heads": ({"head_dim": 7}, "width 7 cannot be rotated"),
    "yarn": ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn' is not supported; known"),
    "half a scaling": ({"rope_scaling": {"rope_type": "linear"}}, "'linear' lacks factor"),
}
REFUSED_GGUF: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"general.architecture": "rwkv"}, "unknown architecture 'rwkv'"),
    "more tokens than rows": ({"llama.vocab_size": 2}, "has 3 tokens but its embedding 2 rows"),
    "partial rotation": ({"llama.attention.key_length": 6}, "key_length = 6 but"),
    "heads that differ by layer": ({"llama.attention.head_count_kv": [1, 2]}, "one whole number"),
    "no layers": ({"llama.block_count": None}, "llama.block_count is missing"),
}


@pytest.mark.parametrize("name", REFUSED_HUGGINGFACE)
def test_a_config_that_we_cannot_compute_is_refused(name):
    changes, message = REFUSED_HUGGINGFACE[name]
    described = {**fake_checkpoints.SHAPE, "model_type": "llama"} | changes
    with pytest.raises(InputError, match=r"FOLDER/config.json: .*" + message):
        config_formats.from_huggingface(json.loads(json.dumps(described)), "FOLDER/config.json")


@pytest.mark.parametrize("name", REFUSED_GGUF)
def test_gguf_metadata_that_we_cannot_compute_is_refused(name):
    changes, message = REFUSED_GGUF[name]
    with pytest.raises(InputError, match=r"m.gguf: .*" + message):
        gguf_shape.from_gguf(GGUF | changes, where="m.gguf")
