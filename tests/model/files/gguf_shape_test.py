"""A GGUF file computes what the folder it was converted from computes."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from score_jax.model import transformer, weights
from tests.model import fake_checkpoints, fake_ggufs
from tests.model.families_test import LONGROPE, SHAPES, YARN

pytestmark = pytest.mark.usefixtures("quick_compile")

logits = jax.jit(transformer.logits, static_argnums=0)
# transformers rounds the rotary base of its tables in another place than llama.cpp.
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-4)

TWINS = [
    *("llama, grouped heads, untied", "llama, linear scaling", "llama, yarn"),
    *("llama, biases of attention and MLP", "llama, longrope beyond the first context"),
    *("mistral, windows crossed", "mistral, tied, no window", "mistral, yarn, windows crossed"),
    *("qwen2, untied", "qwen2, yarn", "qwen3, untied", "qwen3, attention bias"),
    *("phi3, partial rotation, windows crossed", "phi3, tied, whole rotation, no window"),
    "phi3, longrope of a part of each head, beyond the first context",
    *("phi3, longrope within the first context", "olmo2, untied", "granite, untied"),
    *("granite, tied, biases", "smollm3, yarn", "gemma, tied, all heads share one key"),
    *("gemma2, tied, windows crossed", "gemma3, tied, windows crossed"),
]


def twins(tmp_path, family: str, length: int, changes: dict[str, Any], **keys: float):
    """Logits of the folder by transformers and of the file by us."""
    model = fake_checkpoints.huggingface_model(family, **changes)
    tokens_BT = fake_checkpoints.tokens(2, length)
    path = fake_ggufs.write(tmp_path / "m.gguf", model, family, **keys)
    config, params = weights.load(path)
    return fake_checkpoints.huggingface_logits(model, tokens_BT), logits(config, params, tokens_BT)


@pytest.mark.parametrize("name", TWINS)
def test_a_gguf_equals_the_checkpoint_it_was_converted_from(name, tmp_path):
    family, changes, length = SHAPES[name]
    changes = changes | {"num_hidden_layers": 4 if family == "smollm3" else 3}
    if family == "smollm3":  # llama.cpp rotates three layers of four, whatever the config says
        changes = changes | {"no_rope_layers": None}
    if family == "gemma2":  # nor does it read another scale of scores
        changes = changes | {"query_pre_attn_scalar": 8}
    theirs, ours = twins(tmp_path, family, length, changes)
    close(ours, theirs)


@pytest.mark.parametrize(
    ("scaling", "keys"),
    [
        ({"rope_type": "linear", "factor": 4.0}, {"rope__scale_linear": 4.0}),
        ({"rope_type": "linear", "factor": 4.0}, {"rope__scaling__factor": 4.0}),
        ({"rope_type": "default"}, {"rope__scaling__factor": 0.0}),
        (
            {
                "rope_type": "longrope",
                "short_factor": [4.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 64,
                "attention_factor": 1.25,
            },
            {"rope__scaling__factor": 4.0, "rope__scaling__attn_factor": 1.25},
        ),
    ],
    ids=["the old key", "a bare factor", "no factor", "an attention factor alone"],
)
def test_bare_keys_of_rotary_scaling_mean_what_llama_cpp_reads(scaling, keys, tmp_path):
    scaling = scaling | {"rope_theta": 100.0}
    theirs, ours = twins(tmp_path, "llama", 40, {"rope_parameters": scaling}, **keys)
    close(ours, theirs)


def test_a_factor_without_a_kind_of_scaling_of_type_none_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(
        fake_ggufs,
        "_scaling",
        lambda writer, arch, *_: (
            writer.add_string(f"{arch}.rope.scaling.type", "none"),
            writer.add_float32(f"{arch}.rope.scaling.factor", 4.0),
        ),
    )
    theirs, ours = twins(tmp_path, "llama", 40, {})
    close(ours, theirs)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_an_exported_gguf_equals_itself(family, tmp_path):
    """Into a folder and read again, also with a table of factors and without a key for it."""
    scaling = (LONGROPE if family == "phi3" else YARN) | {"partial_rotary_factor": 1.0}
    changes = {"rope_parameters": scaling, "original_max_position_embeddings": 16}
    model = fake_checkpoints.huggingface_model(family, **changes)
    path = fake_ggufs.write(tmp_path / "m.gguf", model, family)
    config, params = weights.load(path)
    weights.save(tmp_path / "out", config, params)
    again, loaded = weights.load(str(tmp_path / "out"))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    tokens_BT = fake_checkpoints.tokens(2, 40)
    close(logits(again, loaded, tokens_BT), fake_checkpoints.huggingface_logits(model, tokens_BT))
