"""A folder of adapters is its base with them merged, computed here by hand; or is refused by name.

Tensors and keys are as peft 0.21.2 writes them.
"""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from score_jax.config.settings import LoraSettings
from score_jax.learner import adapter_files, lora
from score_jax.model import weights
from score_jax.model.files import adapters, saved_params, stored
from score_jax.problem import InputError
from tests import fakes

MODEL = fakes.model(layers=2)  # V 5, D 16, H 2, K 1, E 8, F 16
TIED = dataclasses.replace(MODEL, tied=True)
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


@pytest.fixture
def base(tmp_path):
    """What the base's tensors are, by Hugging Face's names."""
    weights.save(tmp_path / "base", MODEL, fakes.params(MODEL))
    return safetensors.numpy.load_file(tmp_path / "base" / "model.safetensors")


@pytest.fixture
def tied(tmp_path):
    weights.save(tmp_path / "base", TIED, fakes.params(TIED))
    return safetensors.numpy.load_file(tmp_path / "base" / "model.safetensors")


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


def test_dora_gives_every_output_the_length_that_was_learned(base, tmp_path):
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


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WRAPPED = "base_model.model."


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
        {"lora_A.weight": (2, 16), "lora_B.weight": (16, 2), "lora_embedding_A": (2, 16)},
    ],
)
def test_factors_that_do_not_fit_the_weight_are_named(base, tmp_path, parts):
    tensors = {f"{LAYERS}.1.{Q}.{part}": noise(1, *shape) for part, shape in parts.items()}
    with pytest.raises(InputError, match=r"adapter of .*layers.1.self_attn.q_proj is .*\[16, 16\]"):
        weights.load(write(tmp_path / "adapter", tensors))


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


def test_an_adapter_of_a_gguf_file_is_refused(base, tmp_path):
    files = stored.WeightFiles(tmp_path / "m.gguf", MODEL, {}, gguf=True)
    source = write(tmp_path / "adapter", factors(f"{LAYERS}.0.{Q}", 16, 16))
    adapter = adapters.find(Path(source))
    assert adapter is not None
    with pytest.raises(InputError, match=r"of the GGUF file .*m.gguf; .*Hugging Face folders only"):
        adapters.merged(adapter, files)
