"""Models of every shape we know compute what transformers computes."""

import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from score_jax.model import rope, transformer, weights
from score_jax.model.families import ModelConfig
from score_jax.model.files import config_formats, gguf_shape
from score_jax.problem import InputError
from tests import fakes
from tests.model import fake_checkpoints

pytestmark = pytest.mark.usefixtures("quick_compile")

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
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10_000.0,
}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.5, 6.0],
    "original_max_position_embeddings": 16,
    "rope_theta": 100.0,
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
    "llama, yarn": ("llama", {"rope_parameters": YARN}, 40),
    "llama, yarn with another attention factor, not cut to whole pairs": (
        "llama",
        {
            "rope_parameters": YARN
            | {"attention_factor": 1.7, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False}
        },
        40,
    ),
    "llama, yarn with mscale": (
        "llama",
        {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 1.5}},
        40,
    ),
    "llama, longrope within the first context": ("llama", {"rope_parameters": LONGROPE}, 16),
    "llama, longrope beyond the first context": ("llama", {"rope_parameters": LONGROPE}, 60),
    "llama, longrope with factors of its own": (
        "llama",
        {"rope_parameters": LONGROPE | {"factor": 2.0}},
        60,
    ),
    "llama, longrope with an attention factor": (
        "llama",
        {"rope_parameters": LONGROPE | {"attention_factor": 1.3}},
        60,
    ),
    "llama, dynamic scaling within the context": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}},
        31,
    ),
    "llama, biases of attention and MLP": ("llama", {"attention_bias": True, "mlp_bias": True}, 13),
    "mistral, windows crossed": ("mistral", {}, 15),
    "mistral, tied, no window": (
        "mistral",
        {"sliding_window": None, "head_dim": 8, "tie_word_embeddings": True},
        15,
    ),
    "mistral, yarn, windows crossed": (
        "mistral",
        {"rope_parameters": YARN, "sliding_window": 20, "head_dim": 8},
        60,
    ),
    "phi3, partial rotation, windows crossed": ("phi3", {}, 15),
    "phi3, tied, whole rotation, no window": (
        "phi3",
        {"rope_parameters": None, "sliding_window": None, "tie_word_embeddings": True},
        15,
    ),
    "phi3, longrope of a part of each head, beyond the first context": (
        "phi3",
        {
            "num_attention_heads": 2,
            "original_max_position_embeddings": 16,
            "rope_parameters": LONGROPE | {"partial_rotary_factor": 0.5},
        },
        60,
    ),
    "phi3, longrope within the first context": (
        "phi3",
        {
            "num_attention_heads": 2,
            "original_max_position_embeddings": 16,
            "rope_parameters": LONGROPE | {"partial_rotary_factor": 0.5},
        },
        16,
    ),
    "olmo2, untied": ("olmo2", {}, 13),
    "olmo2, tied, biases, linear scaling": (
        "olmo2",
        {
            "tie_word_embeddings": True,
            "attention_bias": True,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
        },
        31,
    ),
    "granite, untied": ("granite", {}, 13),
    "granite, tied, biases": (
        "granite",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
        13,
    ),
    "smollm3, untied": ("smollm3", {}, 13),
    "smollm3, tied, biases, every second layer does not rotate and slides": (
        "smollm3",
        {
            "num_hidden_layers": 4,
            "no_rope_layers": None,
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        17,
    ),
    "smollm3, yarn": ("smollm3", {"rope_parameters": YARN}, 40),
    "qwen2, untied": ("qwen2", {}, 13),
    "qwen2, yarn": ("qwen2", {"rope_parameters": YARN}, 40),
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
    "qwen3, attention bias": ("qwen3", {"attention_bias": True}, 13),
    "gemma, attention bias": ("gemma", {"attention_bias": True}, 11),
    "gemma2, attention bias": ("gemma2", {"attention_bias": True}, 11),
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
    "gemma3, yarn on global layers": (
        "gemma3_text",
        {"rope_parameters": GEMMA3_ROPE | {"full_attention": YARN}},
        40,
    ),
    "gemma3, row within the window": ("gemma3_text", {"sliding_window": 30}, 9),
}


def by_default(*families: str) -> Iterator[Any]:
    """All families; those that are not named only in slow runs."""
    for family in fakes.OF_FAMILY:
        yield pytest.param(family, marks=[] if family in families else pytest.mark.slow)


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_greedy_text_of_a_random_checkpoint_equal_those_of_transformers(name, tmp_path):
    family, changes, length = SHAPES[name]
    model = fake_checkpoints.huggingface_model(family, **changes)
    # The end of the row is what transformers generates; where each of its tokens is our first
    # choice too, our own greedy text is the same.
    given = max(length - 8, (length + 1) // 2)
    tokens_BT = fake_checkpoints.greedy(model, fake_checkpoints.tokens(2, given), length)
    expected_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, tokens_BT)
    assert np.abs(expected_BTV).max() > 1  # else a tolerance of 1e-4 says little
    np.testing.assert_allclose(logits_BTV, expected_BTV, atol=1e-4, rtol=0)
    choice_BT = np.asarray(logits_BTV.argmax(-1))
    np.testing.assert_array_equal(choice_BT[:, given - 1 : -1], tokens_BT[:, given:])


@pytest.mark.parametrize("family", [*by_default("qwen2", "gemma2", "gemma3_text")])
def test_rows_of_several_lengths_equal_those_that_transformers_pads_on_the_left(family, tmp_path):
    torch = pytest.importorskip("torch")
    model = fake_checkpoints.huggingface_model(family)
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    columns, length_B = 11, np.array([11, 4, 7])
    right_BT = fake_checkpoints.tokens(3, columns)
    left_BT = np.stack(
        [np.roll(row, columns - n) for row, n in zip(right_BT, length_B, strict=True)]
    )
    real_BT = np.arange(columns) >= columns - length_B[:, None]
    with torch.no_grad():
        expected_BTV = model(
            torch.tensor(left_BT, dtype=torch.long),
            attention_mask=torch.tensor(real_BT),
            position_ids=torch.tensor(np.maximum(real_BT.cumsum(1) - 1, 0)),
        ).logits.numpy()
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, right_BT)
    for b, n in enumerate(length_B):
        np.testing.assert_allclose(logits_BTV[b, :n], expected_BTV[b, -n:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", [*by_default("qwen3", "gemma2")])
def test_in_bfloat16_logits_are_as_near_to_float32_as_those_of_transformers(family, tmp_path):
    """Root mean square error: 1.1 times that of transformers at most, and 5 % of the logits' own.

    Of single logits the largest error depends on the draw of the weights: it is up to 6 % of the
    largest logit here, and as much in transformers.
    """
    torch = pytest.importorskip("torch")
    model = fake_checkpoints.huggingface_model(family)
    tokens_BT = fake_checkpoints.tokens(2, 13)
    exact_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path), "bfloat16")
    ours_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, tokens_BT)
    theirs_BTV = fake_checkpoints.huggingface_logits(model.to(torch.bfloat16), tokens_BT)
    ours, theirs, size = (
        np.sqrt(np.mean(x**2)) for x in (ours_BTV - exact_BTV, theirs_BTV - exact_BTV, exact_BTV)
    )
    assert 0 < ours < 1.1 * theirs
    assert ours < 0.05 * size


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_after_a_round_trip_through_hugging_face(name):
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
    assert old.head_width == 8  # hidden_size / num_attention_heads by default


def test_a_hub_config_of_gemma_3_means_what_transformers_reads_from_it():
    """As published: the old keys, without those that have a default in the class."""
    published: dict[str, Any] = {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 640,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 2048,
        "sliding_window": 512,
        "_sliding_window_pattern": 6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "max_position_embeddings": 32_768,
    }
    transformers = pytest.importorskip("transformers")
    read = transformers.Gemma3TextConfig(**json.loads(json.dumps(published))).to_dict()
    config = config_formats.from_huggingface(published)
    assert config == config_formats.from_huggingface(read)
    assert config.windows == (512, 512, 512, 512, 512, 0) * 3
    assert (config.rope_theta, config.local_rope_theta) == (1_000_000.0, 10_000.0)
    assert dict(config.rope_scaling or ()) == {"rope_type": "linear", "factor": 8.0}
    assert (config.tied, config.head_width, config.query_scalar) == (True, 256, 0.0)
    assert rope.frequencies(config)[0] == 0.125  # 1 / factor
    assert rope.frequencies(config, local=True)[0] == 1.0


def test_the_text_part_of_a_model_that_sees_images_is_loaded(tmp_path):
    """Gemma 3 4B and up; their folders state what differs from defaults in text_config only."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    text = fake_checkpoints.huggingface_config(
        "gemma3_text", rope_parameters=GEMMA3_ROPE, initializer_range=0.1
    )
    seeing = transformers.SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=seeing.to_dict(), mm_tokens_per_image=1
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    tokens_BT = fake_checkpoints.tokens(2, 31)
    expected_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    model_config, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    assert (model_config.family, model_config.tied) == ("gemma3_text", True)
    assert dict(model_config.rope_scaling or ()) == {"rope_type": "linear", "factor": 8.0}
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(model_config, params, tokens_BT)
    np.testing.assert_allclose(logits_BTV, expected_BTV, atol=1e-4, rtol=0)


def test_a_hub_config_of_gemma_3_4b_means_what_transformers_reads_from_it():
    """As published; what the text part has by default in the class is not in the file."""
    published: dict[str, Any] = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "vision_config": {"model_type": "siglip_vision_model"},
    }
    transformers = pytest.importorskip("transformers")
    read = transformers.Gemma3Config(**json.loads(json.dumps(published))).text_config.to_dict()
    config = config_formats.from_huggingface(published)
    assert config == config_formats.from_huggingface(read)
    assert (config.heads, config.kv_heads, config.vocab_size) == (8, 4, 262_208)


@pytest.mark.parametrize("family", fakes.OF_FAMILY)
def test_missing_keys_of_a_config_mean_the_defaults_of_transformers(family):
    stated = {"model_type": family, "num_hidden_layers": 6}
    read = fake_checkpoints.huggingface_class(family)(num_hidden_layers=6).to_dict()
    shape = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")
    needed = {key: read[key] for key in (*shape, "max_position_embeddings", "num_key_value_heads")}
    assert config_formats.from_huggingface(stated | needed) == config_formats.from_huggingface(read)


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


def test_gguf_metadata_of_gemma_lacks_keys_and_means_the_defaults_of_llama_cpp():
    gemma2 = gguf_shape.from_gguf(of_gemma("gemma2", layers=3))
    assert gemma2.windows == (4096, 0, 4096)
    assert (gemma2.attention_softcap, gemma2.logit_softcap) == (50.0, 30.0)
    assert (gemma2.head_width, gemma2.query_scalar, gemma2.norm_offset) == (8, 0.0, 1.0)
    stated = {"gemma2.attention.sliding_window": 64, "gemma2.attn_logit_softcapping": 5.0}
    gemma2 = gguf_shape.from_gguf(of_gemma("gemma2", layers=3) | stated)
    assert (gemma2.windows, gemma2.attention_softcap) == ((64, 0, 64), 5.0)

    gemma3 = gguf_shape.from_gguf(of_gemma("gemma3", layers=7))
    assert gemma3.windows == (4096,) * 5 + (0, 4096)
    assert (gemma3.rope_theta, gemma3.local_rope_theta) == (1_000_000.0, 10_000.0)
    assert (gemma3.attention_softcap, gemma3.logit_softcap) == (0.0, 0.0)
    stated = {"gemma3.attention.sliding_window_pattern": 2, "gemma3.rope.freq_base_swa": 500.0}
    gemma3 = gguf_shape.from_gguf(of_gemma("gemma3", layers=3) | stated)
    assert (gemma3.windows, gemma3.local_rope_theta) == ((4096, 0, 4096), 500.0)

    # The 27B models scale their scores in another way, and their files do not state it.
    for arch, layers in (("gemma2", 46), ("gemma3", 62)):
        assert gguf_shape.from_gguf(of_gemma(arch, layers)).query_scalar == 16 / 4


def of_gemma(arch: str, layers: int) -> dict[str, Any]:
    renamed = {key.replace("llama.", f"{arch}."): value for key, value in GGUF.items()}
    heads = {f"{arch}.attention.key_length": 8, f"{arch}.attention.value_length": 8}
    return renamed | heads | {"general.architecture": arch, f"{arch}.block_count": layers}


def test_the_frequency_table_of_a_gguf_gives_the_scaling_of_llama_3():
    scaling: dict[str, float | str] = {
        **LLAMA3,
        "original_max_position_embeddings": 8192,
        "factor": 32.0,
    }
    frequency = 10_000.0 ** (-np.arange(32) / 32)
    table = rope.divisors(frequency, scaling)
    found = gguf_shape.from_gguf(GGUF, rope_tables={"rope_freqs.weight": table}).rope_scaling
    assert dict(found or ()) == {k: v for k, v in scaling.items() if k != "rope_theta"}
    with pytest.raises(InputError, match=r"rope_freqs.weight are not those of Llama 3"):
        gguf_shape.from_gguf(GGUF, rope_tables={"rope_freqs.weight": table**2})


REFUSED_HUGGINGFACE: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "mamba"}, "'mamba'.*known: llama"),
    "no architecture": ({"model_type": None}, "unknown architecture None"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
    "biases that the class does not read": (
        {"model_type": "mistral", "attention_bias": True},
        "attention_bias = True is not supported",
    ),
    "partial rotation that the class does not compute": (
        {"partial_rotary_factor": 0.5},
        "partial_rotary_factor = 0.5 is not supported for LlamaForCausalLM",
    ),
    "the same in rope_parameters": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor = 0.5 is not supported",
    ),
    "half a pair": (
        {"model_type": "phi3", "partial_rotary_factor": 0.4},
        "partial_rotary_factor = 0.4 rotates 3.2 of 8 values",
    ),
    "another base of sliding layers": (
        {
            "model_type": "qwen2",
            "rope_parameters": {
                "full_attention": {"rope_theta": 1000.0},
                "sliding_attention": {"rope_theta": 20.0},
            },
        },
        "rope_parameters of sliding_attention layers that differ .* Qwen2ForCausalLM",
    ),
    "a window for some layers of a family that has it in all": (
        {"model_type": "mistral", "layer_types": ["full_attention"] * 3},
        "every layer of MistralForCausalLM has it",
    ),
    "too few layers that rotate": (
        {"model_type": "smollm3", "no_rope_layers": [1, 0]},
        "no_rope_layers must have a 0 or 1 for each of 3 layers",
    ),
    "experts": ({"num_local_experts": 8}, "a mixture of 8 experts is not supported"),
    "no width": ({"hidden_size": None}, "hidden_size is missing"),
    "words for numbers": ({"vocab_size": "many"}, "vocab_size = 'many' must be one whole number"),
    "uneven groups": ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
    "odd heads": ({"head_dim": 7}, "width 7 cannot be rotated"),
    "an unknown scaling": ({"rope_scaling": {"type": "su"}}, "'su' is not supported; known"),
    "a table of another width": (
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 4}},
        r"'longrope' lacks short_factor \(4 numbers\)",
    ),
    "a factor that is none": (
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "attention_factor": "x"}},
        "'yarn' lacks attention_factor",
    ),
    "images without a text part": ({"model_type": "gemma3"}, "text_config is missing"),
    "Mixtral": ({"model_type": "mixtral"}, "a mixture of experts. The nearest .*: Mistral 7B"),
    "Qwen3-MoE": ({"model_type": "qwen3_moe"}, "a mixture of experts. The nearest .*: Qwen3 8B"),
    "Qwen3.5": ({"model_type": "qwen3_5_text"}, "not all attention. The nearest .*: Qwen3 of"),
    "Gemma 4": ({"model_type": "gemma4"}, "another kind. The nearest .*: Gemma 3 4B"),
    "LFM2": ({"model_type": "lfm2"}, "not all attention. The nearest .*: Qwen3 or SmolLM3"),
    "GPT-OSS": ({"model_type": "gpt_oss"}, "a mixture of experts. The nearest .*: Qwen3 8B"),
    "OLMo 3": ({"model_type": "olmo3"}, "two kinds of rotary .* The nearest .*: OLMo 2"),
    "a cap that Gemma 3 does not have": (
        {"model_type": "gemma3_text", "attn_logit_softcapping": 50.0},
        "attn_logit_softcapping = 50.0 is not supported",
    ),
    "another activation of Gemma": (
        {"model_type": "gemma2", "hidden_activation": "relu"},
        "hidden_activation = 'relu' is not supported",
    ),
    "attention to what follows": (
        {"model_type": "gemma2", "use_bidirectional_attention": True},
        "use_bidirectional_attention = True is not supported",
    ),
    "other kinds of layers": (
        {"model_type": "gemma2", "layer_types": ["chunked_attention"] * 3},
        "layer_types must name 3 layers sliding_attention or full_attention",
    ),
    "kinds of too few layers": (
        {"model_type": "gemma2", "layer_types": ["full_attention"]},
        "layer_types must name 3 layers",
    ),
    "local scaling": (
        {"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": LLAMA3}},
        "rotary scaling of sliding_attention layers is not supported",
    ),
    "more layers than any model has": (
        {"num_hidden_layers": 2**40},
        "num_hidden_layers = 1099511627776 must be one whole number from 1 to 1000",
    ),
    "a base that is no number": ({"rope_theta": "x"}, "rope_theta must be one number, above 0"),
    "a cap below 0": (
        {"model_type": "gemma2", "final_logit_softcapping": -1.0},
        "final_logit_softcapping must be one number, 0 or more",
    ),
    "rotary settings that are none": ({"rope_scaling": 8.0}, "must be a JSON object, not 8.0"),
    "a kind of scaling that is none": (
        {"rope_scaling": {"rope_type": ["linear"]}},
        "rotary scaling .* is not supported",
    ),
    "kinds of layers that are no list": (
        {"model_type": "gemma2", "layer_types": 3},
        "layer_types must name 3 layers",
    ),
    "half a scaling": ({"rope_scaling": {"rope_type": "linear"}}, "'linear' lacks factor"),
    "a whole number too large for a float": (
        {"rms_norm_eps": 10**400},
        "rms_norm_eps must be one number, 0 or more",
    ),
    "a factor too large for a float": (
        {"rope_scaling": {"rope_type": "linear", "factor": 10**400}},
        "'linear' lacks factor",
    ),
    "yarn that does not turn": (
        {"rope_theta": 1, "rope_scaling": YARN | {"rope_theta": 1}},
        "rotary settings .* give no finite rotation",
    ),
    "a base whose powers are too large": (
        {"rope_theta": 1e-320},
        "rotary settings .* give no finite rotation",
    ),
    "a rotated part beyond all numbers": (
        {"model_type": "phi3", "partial_rotary_factor": 1e308},
        r"partial_rotary_factor = 1e\+308 rotates",
    ),
    "heads wider than any": ({"head_dim": 2**30}, "heads of width 1073741824 cannot be rotated"),
}
REFUSED_GGUF: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"general.architecture": "t5"}, "unknown architecture 't5'"),
    "Qwen3-MoE": ({"general.architecture": "qwen3moe"}, "a mixture of experts. The nearest"),
    "GPT-OSS": ({"general.architecture": "gpt-oss"}, "a mixture of experts. The nearest"),
    "Mixtral": ({"llama.expert_count": 8}, "a mixture of 8 experts is not supported"),
    "an unknown scaling": (
        {"llama.rope.scaling.type": "su"},
        "rotary scaling 'su' .* yarn, longrope",
    ),
    "longrope without its tables": (
        {"llama.rope.scaling.type": "longrope"},
        "longrope needs the tensors rope_factors_short.weight",
    ),
    "half of yarn": (
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.yarn_ext_factor": 0.5,
        },
        "yarn_ext_factor = 0.5 is not supported",
    ),
    "more tokens than rows": ({"llama.vocab_size": 2}, "has 3 tokens but its embedding 2 rows"),
    "partial rotation": (
        {"llama.attention.key_length": 6, "llama.rope.dimension_count": 4},
        "llama.rope.dimension_count = 4 but its heads are 6 wide",
    ),
    "values of another width": ({"llama.attention.value_length": 6}, "value_length = 6 but"),
    "windows of too few layers": (
        of_gemma("gemma3", 3) | {"gemma3.attention.sliding_window_pattern": (True,)},
        "sliding_window_pattern has 1 entries for 3 layers",
    ),
    "heads that differ by layer": ({"llama.attention.head_count_kv": [1, 2]}, "one whole number"),
    "more layers than any model has": ({"llama.block_count": 2**40}, "number from 1 to 1000"),
    "a base that is no number": (
        {"llama.rope.freq_base": "x"},
        "freq_base must be one number, above 0",
    ),
    "a base that no float32 holds": (
        {"llama.rope.freq_base": 1e300},
        "freq_base must be one number",
    ),
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
