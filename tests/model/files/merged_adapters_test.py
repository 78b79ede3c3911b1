"""Adapters merged into their base, computed here by hand; tensors as peft 0.21.2 writes them."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax.config.settings import LoraSettings
from score_jax.learner import adapter_files, lora
from score_jax.model import weights
from score_jax.model.files import adapters, merged_adapters, stored
from score_jax.problem import InputError
from tests import fakes
from tests.model.files.adapters_test import (
    DOWN,
    LAYERS,
    MODEL,
    SHAPES,
    Q,
    assert_changed,
    factors,
    loaded,
    noise,
    save_base,
    write,
)

TIED = dataclasses.replace(MODEL, tied=True)

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

WRAPPED = "base_model.model."


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path)


@pytest.fixture
def tied(tmp_path):
    return save_base(tmp_path, TIED)


@pytest.mark.parametrize(
    ("described", "scales"),
    [
        ({}, {Q: 3.0, DOWN: 3.0}),
        ({"use_rslora": True}, {Q: 6 / math.sqrt(2), DOWN: 6 / math.sqrt(2)}),
        ({"fan_in_fan_out": True}, {Q: 3.0, DOWN: 3.0}),
        ({"alpha_pattern": {"q_proj": 5}}, {Q: 2.5, DOWN: 3.0}),
        ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 5}}, {Q: (2.5, 3.0), DOWN: 3.0}),
        ({"alpha_pattern": {r"layers.\d.mlp.*": 5, "down_proj": 7}}, {Q: 3.0, DOWN: 2.5}),
        ({"alpha_pattern": {"roj": 5, "layers.0": 7}}, {Q: 3.0, DOWN: 3.0}),
        ({"r": 8, "rank_pattern": {"q_proj": 2, "down_proj": 2}}, {Q: 3.0, DOWN: 3.0}),
        ({"peft_version": "1", "init_lora_weights": "gaussian"}, {Q: 3.0, DOWN: 3.0}),
    ],
)
def test_factors_are_added_with_the_scale_of_their_module(base, tmp_path, described, scales):
    tensors, changes = {}, {}
    for layer in range(2):
        for module, scale in scales.items():
            parts = factors(f"{LAYERS}.{layer}.{module}", *SHAPES[module])
            tensors |= parts
            down, up = parts.values()
            name = f"model.layers.{layer}.{module}.weight"
            one = scale if isinstance(scale, float) else scale[layer]
            changes[name] = base[name] + np.float32(one) * (up @ down)
    source = write(tmp_path / "adapter", tensors, **described)
    assert_changed(loaded(source, tmp_path), base, changes)


def test_each_module_may_have_its_own_rank(base, tmp_path):
    q, down = f"model.layers.0.{Q}.weight", f"model.layers.1.{DOWN}.weight"
    one = factors(f"{LAYERS}.0.{Q}", 16, 16, rank=3)
    two = factors(f"{LAYERS}.1.{DOWN}", 16, 16, rank=2)
    source = write(tmp_path / "adapter", one | two, rank_pattern={"q_proj": 3})
    products = [up @ down for down, up in (one.values(), two.values())]
    changes = {q: base[q] + 2 * products[0], down: base[down] + 3 * products[1]}
    assert_changed(loaded(source, tmp_path), base, changes)
    source = write(tmp_path / "adapter", one | two)
    with pytest.raises(InputError, match=r"r = 2 and lora_alpha = 6 for .*0.self_attn.q_proj, "):
        weights.load(source)


def test_rows_are_merged_in_blocks(base, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_BYTES", 200)  # 3 rows of 16 floats
    parts = factors(f"{LAYERS}.0.self_attn.v_proj", 8, 16)
    down, up = parts.values()
    name = "model.layers.0.self_attn.v_proj.weight"
    source = write(tmp_path / "adapter", parts)
    assert_changed(loaded(source, tmp_path), base, {name: base[name] + 3 * (up @ down)})


def test_dora_gives_every_output_the_length_that_was_learned(base, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_BYTES", 200)  # 3 rows of 16 floats
    stem, name = f"{LAYERS}.0.{Q}", f"model.layers.0.{Q}.weight"
    parts = factors(stem, 16, 16)
    down, up = parts.values()
    magnitude = np.abs(noise(3, 16))
    source = write(
        tmp_path / "adapter", parts | {f"{stem}.lora_magnitude_vector": magnitude}, use_dora=True
    )
    value = base[name] + 3 * (up @ down)
    value *= (magnitude / np.sqrt((value**2).sum(1)))[:, None]
    assert_changed(loaded(source, tmp_path), base, {name: value})
    for change in ({"use_dora": False}, {"use_dora": None}):
        described = json.loads((tmp_path / "adapter" / adapters.CONFIG).read_text()) | change
        (tmp_path / "adapter" / adapters.CONFIG).write_text(json.dumps(described))
        with pytest.raises(InputError, match=r"lora_magnitude_vector.*cannot be merged.*Merge it"):
            weights.load(source)


def test_whole_modules_replace_the_bases(base, tmp_path):
    changes = {"model.norm.weight": noise(4, 16), "lm_head.weight": noise(5, 5, 16)}
    tensors = {f"base_model.model.{name}": value for name, value in changes.items()}
    older = "base_model.model.model.layers.1.input_layernorm.modules_to_save.default.weight"
    tensors[older] = changes["model.layers.1.input_layernorm.weight"] = noise(6, 16)
    source = write(tmp_path / "adapter", tensors, modules_to_save=["norm", "lm_head"])
    assert_changed(loaded(source, tmp_path), base, changes)


def test_an_adapter_of_one_use_of_a_shared_embedding_parts_them(tied, tmp_path):
    """peft adapts the module it is told, and leaves the weight that the other one shares."""
    before = tied | {HEAD: tied[EMBEDDING]}
    parts = factors(f"{WRAPPED}lm_head", 5, 16)
    down, up = parts.values()
    source = write(tmp_path / "adapter", parts)
    assert not weights.shape(source).tied
    changed = before[HEAD] + 3 * (up @ down)
    assert_changed(loaded(source, tmp_path), before, {HEAD: changed})

    stem = f"{WRAPPED}model.embed_tokens"
    parts = {
        f"{stem}.lora_embedding_A": noise(1, 2, 5),
        f"{stem}.lora_embedding_B": noise(2, 16, 2),
    }
    down, up = parts.values()
    # peft saves the embedding under the adapter too, where it adapts it.
    source = write(tmp_path / "adapter", parts | {f"{stem}.base_layer.weight": tied[EMBEDDING]})
    changed = before[EMBEDDING] + 3 * (up @ down).T
    assert_changed(loaded(source, tmp_path), before, {EMBEDDING: changed})

    source = write(tmp_path / "adapter", {f"{WRAPPED}{EMBEDDING}": noise(7, 5, 16)})
    assert_changed(loaded(source, tmp_path), before, {EMBEDDING: noise(7, 5, 16)})


def test_a_shared_embedding_that_was_trained_whole_stays_shared(tied, tmp_path):
    whole = {f"{WRAPPED}{EMBEDDING}": noise(7, 5, 16), f"{WRAPPED}{HEAD}": noise(7, 5, 16)}
    source = write(tmp_path / "adapter", whole)
    assert weights.shape(source).tied
    assert_changed(loaded(source, tmp_path), tied, {EMBEDDING: noise(7, 5, 16)})
    source = write(tmp_path / "adapter", whole | {f"{WRAPPED}{HEAD}": noise(8, 5, 16)})
    assert_changed(
        loaded(source, tmp_path),
        tied | {HEAD: tied[EMBEDDING]},
        {EMBEDDING: noise(7, 5, 16), HEAD: noise(8, 5, 16)},
    )
    one = {f"{WRAPPED}{EMBEDDING}": noise(7, 5, 16)}
    source = write(tmp_path / "adapter", one, ensure_weight_tying=True)
    with pytest.raises(InputError, match=r"ensure_weight_tying is set, but .*embed_tokens.weight"):
        weights.load(source)


def test_a_vocabulary_that_has_grown_with_the_adapter_is_the_models(base, tmp_path):
    whole = {f"{WRAPPED}{EMBEDDING}": noise(7, 6, 16), f"{WRAPPED}{HEAD}": noise(8, 6, 16)}
    source = write(tmp_path / "adapter", whole)
    assert weights.shape(source) == dataclasses.replace(MODEL, vocab_size=6)
    del whole[f"{WRAPPED}{HEAD}"]
    with pytest.raises(InputError, match=r"lm_head.weight is \[5, 16\], should be \[6, 16\]"):
        weights.load(write(tmp_path / "adapter", whole))


def test_a_shared_embedding_that_has_grown_under_its_adapter_is_the_head_too(tied, tmp_path):
    stem, grown = f"{WRAPPED}model.embed_tokens", noise(7, 6, 16)
    down, up = noise(1, 2, 6), noise(2, 16, 2)
    parts = {f"{stem}.lora_embedding_A": down, f"{stem}.lora_embedding_B": up}
    source = write(tmp_path / "adapter", parts | {f"{stem}.base_layer.weight": grown})
    found = loaded(source, tmp_path)
    np.testing.assert_array_equal(found[HEAD], grown)
    np.testing.assert_allclose(found[EMBEDDING], grown + 3 * (up @ down).T, atol=2e-6)


def test_adapters_that_we_export_load_as_what_was_trained(base, tmp_path):
    settings = LoraSettings(rank=2, alpha=5.0, targets="layers/(query|output|down)")
    made = lora.init(jax.random.key(0), MODEL, settings)
    made = jax.tree.map(lambda x: x + 0.1, made)
    adapter_files.save_adapters(
        tmp_path / "adapter", MODEL, made, settings, source=str(tmp_path / "base")
    )
    config, params = weights.load(str(tmp_path / "adapter"))
    assert config == MODEL
    expected = lora.merge(fakes.params(MODEL), made, settings)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, expected)
    assert not np.allclose(params["layers"]["query"], fakes.params(MODEL)["layers"]["query"])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (factors(f"{LAYERS}.2.{Q}", 16, 16), "layers.2.self_attn.q_proj.lora_A"),
        (factors(f"{LAYERS}.0.mlp.router", 16, 16), "layers.0.mlp.router.lora_A"),
        ({"base_model.model.prompt_encoder.weight": noise(1, 2, 2)}, "prompt_encoder.weight"),
        ({f"{LAYERS}.0.{Q}.ia3_l": noise(1, 16, 1)}, "q_proj.ia3_l"),
        (
            factors(f"{LAYERS}.0.{Q}", 16, 16) | factors(f"other.layers.1.{Q}", 16, 16),
            "names that begin with base_model.model.model., other.",
        ),
    ],
)
def test_tensors_that_the_base_has_no_place_for_are_named(base, tmp_path, tensors, said):
    with pytest.raises(InputError, match="cannot be merged into") as caught:
        weights.load(write(tmp_path / "adapter", tensors))
    assert said in str(caught.value) and "Merge it with peft" in str(caught.value)


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_A.weight": (2, 16)},
        {"lora_B.weight": (16, 2)},
        {"lora_A.weight": (2, 12), "lora_B.weight": (16, 2)},
        {"lora_A.weight": (2, 16), "lora_B.weight": (12, 2)},
        {"lora_A.weight": (2, 16), "lora_B.weight": (16, 3)},
        {"lora_A.weight": (2, 16), "lora_B.weight": (16, 2), "lora_embedding_B": (16, 2)},
    ],
)
def test_factors_that_do_not_fit_the_weight_are_named(base, tmp_path, parts):
    tensors = {f"{LAYERS}.1.{Q}.{part}": noise(1, *shape) for part, shape in parts.items()}
    with pytest.raises(InputError, match=r"adapter of .*layers.1.self_attn.q_proj is .*\[16, 16\]"):
        weights.load(write(tmp_path / "adapter", tensors))


def test_an_adapter_of_a_gguf_file_is_refused(base, tmp_path):
    files = stored.WeightFiles(tmp_path / "m.gguf", MODEL, {}, gguf=True)
    source = write(tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16))
    adapter = adapters.find(Path(source))
    assert adapter is not None
    with pytest.raises(InputError, match=r"of the GGUF file .*m.gguf; .*Hugging Face folders only"):
        merged_adapters.merged(adapter, files)


@pytest.mark.parametrize("described", [{"lora_alpha": 10**400}, {"lora_alpha": "6"}, {"r": 2.5}])
def test_a_scale_that_is_no_number_is_named(base, tmp_path, described):
    source = write(tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16), **described)
    with pytest.raises(InputError, match=r"r = .* and lora_alpha = .*, so its scale is not known"):
        weights.load(source)


@pytest.mark.parametrize("patterns", [3, "x", [1], {"(": 2}])
def test_patterns_that_are_no_regular_expressions_are_named(base, tmp_path, patterns):
    for key in ("rank_pattern", "alpha_pattern"):
        described = {key: patterns}
        source = write(tmp_path / key, factors(f"{LAYERS}.0.{Q}", 16, 16), **described)
        with pytest.raises(InputError, match=rf"{key} = .* does not map patterns of modules"):
            weights.load(source)
