"""A folder of adapters is its base with them merged, computed here by hand; or is refused by name.

Tensors and keys are as peft 0.21.2 writes them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from score_jax.model import weights
from score_jax.model.families import ModelConfig
from score_jax.model.files import adapters, saved_params
from score_jax.problem import InputError
from tests import fakes

MODEL = fakes.model(layers=2)  # V 5, D 16, H 2, K 1, E 8, F 16
Q, DOWN = "self_attn.q_proj", "mlp.down_proj"
LAYERS = "base_model.model.model.layers"
SHAPES = {Q: (16, 16), DOWN: (16, 16), "self_attn.v_proj": (8, 16)}


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def factors(stem: str, rows: int, columns: int, rank: int = 2) -> dict[str, np.ndarray]:
    return {
        f"{stem}.lora_A.weight": noise(1, rank, columns),
        f"{stem}.lora_B.weight": noise(2, rows, rank),
    }


def write(folder: Path, tensors: dict[str, np.ndarray], **described) -> str:
    """An adapter of rank 2, scale 3 unless `described` says otherwise."""
    folder.mkdir(exist_ok=True)
    known = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(folder.parent / "base"),
        "r": 2,
        "lora_alpha": 6,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "qalora_group_size": 16,  # a setting that means nothing without another
    }
    (folder / adapters.CONFIG).write_text(json.dumps(known | described))
    safetensors.numpy.save_file(tensors, folder / adapters.WEIGHTS)
    return str(folder)


def save_base(tmp_path: Path, config: ModelConfig = MODEL) -> dict[str, np.ndarray]:
    """Writes the base; its tensors by Hugging Face's names."""
    weights.save(tmp_path / "base", config, fakes.params(config))
    return safetensors.numpy.load_file(tmp_path / "base" / "model.safetensors")


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path)


def loaded(source: str, tmp_path: Path) -> dict[str, np.ndarray]:
    """The tensors of what is loaded, by Hugging Face's names."""
    config, params = weights.load(source)
    weights.save(tmp_path / "out", config, params)
    return safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")


def assert_changed(found, before, changes):
    """All tensors are as before, but those changed, which are as given."""
    assert found.keys() == before.keys() | changes.keys()
    for name, value in (before | changes).items():
        np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)
        assert (name in changes) == (name not in before or (value != before[name]).any()), name


@pytest.mark.parametrize(
    "named", ["{there}/base", "../base", "base", "/gone/elsewhere/base", "someone/base"]
)
def test_the_base_is_found_by_its_path_or_beside_the_adapter(base, tmp_path, named):
    named = named.format(there=tmp_path)
    source = write(
        tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16), base_model_name_or_path=named
    )
    assert weights.shape(source) == MODEL
    origin = saved_params.origin(source)
    assert [Path(path).resolve() for path in origin] == [tmp_path / "base"] * 2


def test_a_relative_path_is_one_from_the_adapters_folder(base, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "base").rename(tmp_path / "models" / "base")
    source = write(
        tmp_path / "adapter",
        factors(f"{LAYERS}.0.{Q}", 16, 16),
        base_model_name_or_path="../models/base",
    )
    assert weights.shape(source) == MODEL


def test_a_tokenizer_saved_with_the_adapter_is_the_one_that_is_used(base, tmp_path):
    source = write(tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16))
    (tmp_path / "adapter" / "tokenizer.json").write_text("{}")
    assert saved_params.origin(source) == (str(tmp_path / "base"), source)
    assert saved_params.origin(source, "other") == (str(tmp_path / "base"), "other")


def test_an_adapter_of_an_adapter_is_merged_into_what_the_other_one_gives(base, tmp_path):
    name = f"model.layers.0.{Q}.weight"
    parts = factors(f"{LAYERS}.0.{Q}", 16, 16)
    write(tmp_path / "one", parts)
    source = write(tmp_path / "two", parts, base_model_name_or_path="../one", lora_alpha=2)
    down, up = parts.values()
    assert_changed(loaded(source, tmp_path), base, {name: base[name] + 4 * (up @ down)})


# Refused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", "LOHA"),
        ("task_type", "SEQ_CLS"),
        ("bias", "lora_only"),
        ("bias", "all"),
        ("lora_bias", True),
        ("revision", "v1.1"),
        ("use_qalora", True),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("trainable_token_indices", [3]),
        ("trainable_token_indices", {"embed_tokens": [3]}),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("alora_invocation_tokens", [1, 2]),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(base, tmp_path, key, value):
    source = write(tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16), **{key: value})
    with pytest.raises(InputError) as caught:
        weights.described(source)  # before any weights are looked at
    assert f"adapter_config.json: adapters with {key} = {value!r} are not" in str(caught.value)
    assert "Merge it with peft" in str(caught.value)


def test_a_missing_or_unfit_base_is_named_with_the_adapter(base, tmp_path):
    source = write(tmp_path / "adapter", {}, base_model_name_or_path="/gone/model")
    for read in (weights.load, weights.described, saved_params.origin):
        with pytest.raises(
            InputError, match=r"adapter is an adapter of /gone/model .*no such .*elsewhere, say so"
        ):
            read(source)
    # Its own folder is no base.
    source = write(tmp_path / "adapter", {}, base_model_name_or_path=str(tmp_path / "adapter"))
    with pytest.raises(InputError, match=r"this is an adapter of itself .*hub id there"):
        weights.load(source)
    source = write(tmp_path / "adapter", {}, base_model_name_or_path="")
    with pytest.raises(InputError, match=r"does not say what was adapted \(base_model_name"):
        weights.load(source)
    (tmp_path / "adapter" / adapters.CONFIG).write_text("{")
    with pytest.raises(InputError, match=r"adapter_config.json is not JSON"):
        weights.load(source)


def test_adapters_that_name_each_other_are_refused(tmp_path):
    for name, base in (("one", "two"), ("two", "three"), ("three", "two")):
        source = write(tmp_path / name, {}, base_model_name_or_path=str(tmp_path / base))
    message = r"one is an adapter of \S+two, .* leads back to \S+two: no model is at the end"
    for read in (weights.load, weights.described, saved_params.origin):
        with pytest.raises(InputError, match=message):
            read(str(tmp_path / "one"))
    with pytest.raises(InputError, match=r"three is an adapter of .* leads back to"):
        weights.load(source)


def test_an_adapter_beside_a_model_is_not_guessed_about(base, tmp_path):
    write(tmp_path / "base", factors(f"{LAYERS}.0.{Q}", 16, 16), base_model_name_or_path="x/y")
    with pytest.raises(InputError, match=r"holds a model and an adapter.*Move adapter_config.json"):
        weights.load(str(tmp_path / "base"))


def test_pickled_or_missing_adapters_are_refused_with_what_converts_them(base, tmp_path):
    torch = pytest.importorskip("torch")
    parts = factors(f"{LAYERS}.0.{Q}", 16, 16)
    source = write(tmp_path / "adapter", parts)
    expected = loaded(source, tmp_path)
    (tmp_path / "adapter" / adapters.WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"holds no adapter_model.safetensors. Fetch that file"):
        weights.load(source)
    values = {name: torch.tensor(value) for name, value in parts.items()}
    torch.save(values, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(
        InputError, match=r"adapter_model.bin is not read: .*runs the code"
    ) as caught:
        weights.load(source)
    exec(str(caught.value).split('python -c "')[1].removesuffix('"'))
    assert_changed(loaded(source, tmp_path), expected, {})
