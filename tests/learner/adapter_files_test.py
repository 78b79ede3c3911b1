import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from score_jax.config.settings import LoraSettings
from score_jax.learner import adapter_files, lora
from score_jax.model import weights
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


def test_weights_in_one_tensor_get_one_adapter_that_adds_the_same(tmp_path):
    model = fakes.model_of_family("phi3")
    settings = LoraSettings(rank=2, alpha=6.0, targets="layers/(query|value|gate|up|down)")
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), model, settings))
    draw = np.random.default_rng(0)
    ours = jax.tree.map(lambda x: draw.normal(size=x.shape).astype(np.float32), shapes)
    base = fakes.params(model)
    adapter_files.save_adapters(tmp_path, model, ours, settings, source="x")
    weights.save(tmp_path / "base", model, base)
    weights.save(tmp_path / "merged", model, lora.merge(base, ours, settings))
    described = json.loads((tmp_path / "adapter_config.json").read_text())
    assert described["target_modules"] == ["down_proj", "gate_up_proj", "qkv_proj"]
    assert described["rank_pattern"] == {"qkv_proj": 4, "gate_up_proj": 4}
    factors = load_file(tmp_path / "adapter_model.safetensors")
    before, after = (
        load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged")
    )
    for name in after:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        added = after[name] - before[name]
        if not added.any():
            assert f"{stem}.lora_A.weight" not in factors
            continue
        module = name.split(".")[-2]
        rank = described["rank_pattern"].get(module, described["r"])
        alpha = described["alpha_pattern"].get(module, described["lora_alpha"])
        down, up = (factors[f"{stem}.lora_{x}.weight"] for x in "AB")
        assert down.shape[0] == up.shape[1] == rank
        np.testing.assert_allclose(alpha / rank * up @ down, added, rtol=0, atol=1e-5)
