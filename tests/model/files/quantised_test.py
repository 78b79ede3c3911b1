"""Quantised folders are refused with how they are quantised and what loads in their place."""

import json

import numpy as np
import pytest
import safetensors.numpy

from score_jax.model import weights
from score_jax.problem import InputError
from tests import fakes

MODEL = fakes.model()
# As the config.json files of published models say it.
METHODS = {
    "gptq": {"bits": 4, "group_size": 128, "quant_method": "gptq", "desc_act": False},
    "awq": {"bits": 4, "quant_method": "awq", "version": "gemm", "zero_point": True},
    "bitsandbytes": {"load_in_4bit": True, "quant_method": "bitsandbytes"},
    "load_in_8bit": {"load_in_8bit": True},
    "fp8": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "compressed-tensors, float-quantized": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
    },
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    "hqq": {"quant_method": "hqq", "quant_config": {}},
    "unknown kind": {"skip_modules": ["lm_head"]},
}


@pytest.fixture
def folder(tmp_path):
    weights.save(tmp_path / "model", MODEL, fakes.params(MODEL))
    return tmp_path / "model"


def describe(folder, **more):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_folder_is_refused_before_its_weights_are_looked_for(folder, method):
    describe(folder, quantization_config=METHODS[method])
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        weights.described(str(folder))
    assert f"quantised weights (config.json has a quantization_config of {method}" in str(
        caught.value
    )
    assert "Name the model they were made from, or a GGUF file of it" in str(caught.value)


@pytest.mark.parametrize("key", ["compression_config", "quantization"])
def test_other_tools_keys_are_known_too(folder, key):
    describe(folder, **{key: {"group_size": 64, "bits": 4}})
    with pytest.raises(InputError, match=f"has a {key} of unknown kind, 4"):
        weights.load(str(folder))


@pytest.mark.parametrize("nothing", [None, {}, False])
def test_a_folder_that_says_that_it_is_not_quantised_loads(folder, nothing):
    describe(folder, quantization_config=nothing)
    assert weights.load(str(folder))[0] == MODEL


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct"),
        ("Qwen2.5-7B-Instruct-AWQ", "Qwen2.5-7B-Instruct"),
        ("Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "Llama-3.2-1B-Instruct"),
        ("llama-3-8b-bnb-4bit", "llama-3-8b"),
        ("Qwen3-4B-FP8", "Qwen3-4B"),
        ("Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Meta-Llama-3.1-8B-Instruct"),
        ("Llama-3.1-8B-Instruct-FP8-dynamic", "Llama-3.1-8B-Instruct"),
        ("gemma-2-2b-it-4bit", "gemma-2-2b-it"),
        ("models--unsloth--gemma-2-2b-bnb-4bit/snapshots/0a1b", "unsloth/gemma-2-2b"),
        ("Qwen3-4B", ""),
        ("models--owner--Awqward-7B/snapshots/0a1b", ""),
    ],
)
def test_the_name_of_the_unquantised_model_is_given_where_the_name_shows_it(
    folder, tmp_path, name, source
):
    describe(folder, quantization_config=METHODS["gptq"])
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    folder = folder.rename(tmp_path / name)
    said = f"made from (by this one's name {source}), or" if source else "made from, or a GGUF"
    with pytest.raises(InputError) as caught:
        weights.load(str(folder))
    assert said in str(caught.value)


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint8])
def test_quantised_tensors_that_config_json_hides_are_named(folder, kind):
    path = folder / "model.safetensors"
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors | {name: tensors[name].astype(kind)}, path)
    with pytest.raises(InputError, match=f"quantised weights .*1 tensors like this: {name}.*dtype"):
        weights.load(str(folder))
