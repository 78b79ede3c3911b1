"""Rotary frequencies, and that a run has one set of them."""

import jax
import numpy as np
import pytest

from score_jax.model import block, rope, transformer, weights
from score_jax.model import cache as kv
from score_jax.model.files import config_formats
from tests import fakes
from tests.model import fake_checkpoints
from tests.model.families_test import LONGROPE, YARN

pytestmark = pytest.mark.usefixtures("quick_compile")

DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
logits = jax.jit(transformer.logits, static_argnums=0)


@pytest.mark.parametrize(
    "scaling",
    [
        YARN | {"original_max_position_embeddings": 32_768, "rope_theta": 1_000_000.0},
        YARN | {"original_max_position_embeddings": 4096, "factor": 40.0, "truncate": False},
        YARN | {"beta_fast": 4.0, "beta_slow": 0.01},
        YARN | {"factor": 1.0},
        YARN | {"mscale": 1.0, "mscale_all_dim": 0.5, "factor": 32.0},
        LONGROPE | {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64},
        LONGROPE | {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64, "factor": 0.5},
        DYNAMIC,
    ],
    ids=lambda s: f"{s['rope_type']} {len(s)} {s.get('factor')}",
)
@pytest.mark.parametrize("length", [8, 16, 17, 131_072, 300_000])
def test_frequencies_and_amplitudes_equal_those_of_transformers(scaling, length):
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    described = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        max_position_embeddings=131_072,
        rope_parameters=dict(scaling),
    )
    function = functions[scaling["rope_type"]]
    frequency, amplitude = function(described, "cpu", seq_len=length)
    model = rope.for_rows(config_formats.from_huggingface(described.to_dict()), length)
    np.testing.assert_allclose(rope.frequencies(model), frequency.numpy(), rtol=3e-6)
    assert rope.amplitude(model) == pytest.approx(amplitude, rel=1e-12)


def test_longer_rows_than_the_context_turn_as_transformers_turns_them(tmp_path):
    """Dynamic scaling; transformers takes the length that a row has at each call."""
    model = fake_checkpoints.huggingface_model(
        rope_parameters=dict(DYNAMIC), max_position_embeddings=16
    )
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    for length in (16, 17, 31):
        tokens_BT = fake_checkpoints.tokens(2, length)
        expected_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
        run = rope.for_rows(config, length)
        np.testing.assert_allclose(logits(run, params, tokens_BT), expected_BTV, atol=1e-4, rtol=0)
    assert rope.context(config) == 32


@pytest.mark.parametrize("longest", [16, 40], ids=["within the context", "beyond it"])
@pytest.mark.parametrize("scaling", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic"])
def test_rows_that_grow_in_a_cache_keep_the_positions_of_the_longest_row(scaling, longest):
    described = fake_checkpoints.SHAPE | {
        "model_type": "llama",
        "max_position_embeddings": 64 if scaling is LONGROPE else 16,
        "rope_parameters": scaling,
    }
    model = rope.for_rows(config_formats.from_huggingface(described), longest)
    params, tokens_BT = fakes.params(model), fake_checkpoints.tokens(2, longest)
    layers, cache = (
        transformer.for_decoding(model, params, "float32"),
        kv.empty(model, 2, longest, "float32"),
    )
    extend = jax.jit(transformer.extend, static_argnums=0)
    found = []
    for first in range(0, longest, 8):
        start_B = np.full(2, first, np.int32)
        hidden_BND, cache = extend(model, layers, cache, tokens_BT[:, first : first + 8], start_B)
        found.append(transformer.project(model, params, hidden_BND))
    whole_BTV = logits(model, params, tokens_BT)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole_BTV, atol=1e-5, rtol=0)
    # A row by itself that is short, as a server sees it, turns otherwise beyond the context.
    alone_BTV = logits(rope.for_rows(model, 8), params, tokens_BT[:, :8])
    same = np.allclose(alone_BTV, whole_BTV[:, :8], atol=1e-5)
    assert same == (longest == 16)


@pytest.mark.parametrize("scaling", [LONGROPE, DYNAMIC], ids=["longrope", "dynamic"])
def test_a_cache_refuses_a_model_that_does_not_know_its_longest_row(scaling):
    described = fake_checkpoints.SHAPE | {"model_type": "llama", "rope_parameters": scaling}
    model = config_formats.from_huggingface(described)
    position_11 = np.zeros((1, 1), np.int32)
    with pytest.raises(ValueError, match=r"depends on a run's longest row.*rope.for_rows"):
        block.rotary_angles(model, position_11)
    with pytest.raises(ValueError, match="which is 8 here, and there are 9 columns"):
        block.rotary_angles(rope.for_rows(model, 8), position_11, columns=9)


def test_models_whose_frequencies_are_fixed_do_not_depend_on_the_longest_row():
    assert rope.for_rows(fakes.MODEL, 7) is fakes.MODEL


def test_scalings_that_stretch_a_stated_context_give_a_longer_one():
    described = fake_checkpoints.SHAPE | {"model_type": "qwen2", "max_position_embeddings": 16}
    assert rope.context(config_formats.from_huggingface(described)) == 16
    for scaling in (YARN, DYNAMIC | {"factor": 4.0}):
        stretched = config_formats.from_huggingface(described | {"rope_parameters": scaling})
        assert rope.context(stretched) == 64


def test_older_names_of_longrope_and_keys_outside_of_it_mean_the_same():
    tables = {"short_factor": [1.0, 1.5], "long_factor": [1.0, 3.0]}
    described = fake_checkpoints.SHAPE | {
        "model_type": "phi3",
        "partial_rotary_factor": 0.5,
        "original_max_position_embeddings": 16,
    }
    old, su, new = (
        config_formats.from_huggingface(described | {"rope_scaling": {"type": kind} | tables})
        for kind in ("yarn", "su", "longrope")
    )
    assert old == su == new
    assert dict(new.rope_scaling or ())["original_max_position_embeddings"] == 16
