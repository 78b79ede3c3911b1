"""Tensors that change nothing are named and left out; all others are refused."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from score_jax.model import weights
from score_jax.model.files import leftovers
from score_jax.problem import InputError
from tests import fakes

MODEL = fakes.model(layers=2)
ATTENTION = "model.layers.0.self_attn"
NAMES = {
    "rotary tables": (
        f"{ATTENTION}.rotary_emb.inv_freq",
        f"{ATTENTION}.rotary_emb.cos_cached",
        f"{ATTENTION}.rotary_emb.sin_cached",
        "model.rotary_emb.inv_freq",
        "model.rotary_emb.original_inv_freq",
        "rotary_pos_emb.inv_freq",
    ),
    "attention masks": (f"{ATTENTION}.masked_bias", "model.causal_mask"),
    "heads of a reward or value model": (
        "v_head.summary.weight",
        "v_head.summary.bias",
        "score.weight",
        "model.score.weight",
        "value_head.0.weight",
    ),
    "heads that predict several tokens": (
        "model.mtp.layers.0.self_attn.q_proj.weight",
        "mtp.norm.weight",
        "model.mtp_layers.0.input_layernorm.weight",
        "medusa_head.0.0.linear.weight",
    ),
    "layers that predict a further token": (
        "model.layers.2.eh_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.shared_head.head.weight",
        "model.layers.3.enorm.weight",
        "model.layers.3.mlp.up_proj.weight",
    ),
    "parts that see or hear": (
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.embeddings.position_ids",
        "multi_modal_projector.mm_input_projection_weight",
        "model.vision_tower.blocks.0.norm.weight",
    ),
}


@pytest.fixture
def folder(tmp_path):
    weights.save(tmp_path, MODEL, fakes.params(MODEL))
    return tmp_path


INTEGERS = np.ones((2, 3), np.int64)  # no weight is: a tensor that is left out may be of any type


def add(folder, *names: str, value=INTEGERS):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors | dict.fromkeys(names, value), path)


@pytest.mark.parametrize("kind", NAMES)
def test_tensors_that_change_nothing_are_named_in_one_line_and_left_out(folder, kind, caplog):
    _, expected = weights.load(str(folder))
    add(folder, *NAMES[kind])
    config, params = weights.load(str(folder))
    weights.shape(str(folder))
    assert config == MODEL
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    (line,) = [record.getMessage() for record in caplog.records if kind in record.getMessage()]
    assert line.startswith(f"{folder}: left out, as the language model does not use them: {kind}")
    assert all(name in line for name in NAMES[kind])


def test_several_kinds_are_still_one_line(folder, caplog):
    add(folder, "v_head.summary.weight", "mtp.norm.weight", "model.rotary_emb.inv_freq")
    weights.load(str(folder))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.count(";") == 2 and line.endswith("(v_head.summary.weight).")


def test_tensors_inside_of_a_wrapper_are_left_out_too(folder):
    path = folder / "model.safetensors"
    found = safetensors.numpy.load_file(path)
    wrapped = {f"module.{name}": value for name, value in found.items()}
    one = np.ones(3, np.float32)
    for names in NAMES.values():
        wrapped |= {f"module.{name}": one for name in names}
    safetensors.numpy.save_file(wrapped, path)
    assert weights.shape(str(folder)) == MODEL


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.self_attn.q_proj.weight",  # a layer more than config.json says
        "model.layers.1.eh_proj.weight",  # in a layer of the model's own
        f"{ATTENTION}.q_proj.bias",
        f"{ATTENTION}.rotary_emb.scale",
        f"{ATTENTION}.score.weight",
        "model.layers.0.mlp.gate.weight",
        "lm_head.bias",
        "model.norm.bias",
        "head.weight",
        "model.embed_positions.weight",
    ],
)
def test_every_other_tensor_is_refused_by_name(folder, name):
    add(folder, name, value=np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match=f"1 unexpected: {name}"):
        weights.load(str(folder))


def test_a_line_is_said_once(caplog):
    for _ in range(3):
        leftovers.say("this line, once")
    assert caplog.text.count("this line, once") == 1
