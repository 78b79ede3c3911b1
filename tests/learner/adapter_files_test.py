import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from score_jax.config.settings import LoraSettings
from score_jax.learner import adapter_files
from score_jax.problem import InputError
from tests import fakes
from tests.learner.lora_test import MODEL, SETTINGS, SHAPES, adapters

THEIRS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def test_a_saved_folder_has_pefts_names_shapes_and_values(tmp_path):
    ours = adapters()
    adapter_files.save_adapters(tmp_path / "out", MODEL, ours, SETTINGS, source="owner/name")
    described = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert described["peft_type"] == "LORA" and described["task_type"] == "CAUSAL_LM"
    assert (described["r"], described["lora_alpha"]) == (2, 6.0)
    assert described["base_model_name_or_path"] == "owner/name"
    assert described["target_modules"] == sorted(n.split(".")[1] for n in THEIRS.values())
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(SHAPES) * MODEL.layers
    for name, theirs in THEIRS.items():
        for layer in range(MODEL.layers):
            stem = f"base_model.model.model.layers.{layer}.{theirs}"
            # A product of theirs is x @ lora_A.T @ lora_B.T.
            down, up = (np.asarray(ours[name][side])[layer] for side in ("down", "up"))
            lora_a, lora_b = (tensors[f"{stem}.lora_{x}.weight"] for x in "AB")
            np.testing.assert_array_equal(lora_a.T, down.reshape(-1, 2))
            np.testing.assert_array_equal(lora_b.T, up.reshape(2, -1))
    assert not list((tmp_path / "out").glob("*.part"))


def test_only_targeted_weights_are_named(tmp_path):
    settings = LoraSettings(rank=2, targets="layers/(query|down)")
    chosen = {name: adapters()[name] for name in ("query", "down")}
    adapter_files.save_adapters(tmp_path, fakes.model(layers=2), chosen, settings, source="x")
    described = json.loads((tmp_path / "adapter_config.json").read_text())
    assert described["target_modules"] == ["down_proj", "q_proj"]
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 8


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/out: the adapters cannot be written"):
        adapter_files.save_adapters(
            tmp_path / "file" / "out", MODEL, adapters(), SETTINGS, source=""
        )
