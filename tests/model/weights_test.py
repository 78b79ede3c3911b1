"""Weights arrive unchanged, leave unchanged, and damaged files say what is wrong with them."""

import dataclasses
import functools
import json
import shutil
import struct
import sys
import tracemalloc
import types

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from score_jax.model import transformer, weights
from score_jax.model.families import FAMILIES, ModelConfig
from score_jax.model.files import (
    adapters,
    huggingface,
    locate,
    safetensors_file,
    stored,
    tensor_names,
)
from score_jax.problem import InputError
from tests import fakes
from tests.model import fake_checkpoints
from tests.model.families_test import SHAPES

CONFIG = ModelConfig(
    family="llama",
    vocab_size=19,
    layers=2,
    width=12,
    heads=4,
    kv_heads=2,
    head_width=6,
    mlp_width=10,
    max_positions=64,
)


BIASED = dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), True)


def random_params(config: ModelConfig = CONFIG):
    generator = np.random.default_rng(0)
    params: dict = {"layers": {}}
    for place in tensor_names.places(config):
        shape = tensor_names.shape(place, config)
        if place.stacked:
            shape = (config.layers, *shape)
        group = params["layers"] if place.stacked else params
        group[place.path.split("/")[-1]] = generator.standard_normal(shape, np.float32)
    return params


@pytest.fixture
def folder(tmp_path):
    weights.save(tmp_path / "model", CONFIG, random_params())
    return tmp_path / "model"


def rewrite(folder, change):
    """Lets `change` edit the dict of tensors in the folder's file."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saved_weights_load_unchanged(tied, dtype, tmp_path):
    config = ModelConfig(**{**CONFIG.__dict__, "tied": tied})
    params = jax.tree.map(lambda x: x.astype(dtype), random_params(config))
    weights.save(tmp_path, config, params)
    loaded_config, loaded = weights.load(str(tmp_path), dtype)
    assert loaded_config == config
    assert {str(x.dtype) for x in jax.tree.leaves(loaded)} == {dtype}
    assert_same(loaded, params)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_saved_in_bfloat16_loads_as_float32(tmp_path):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params())
    weights.save(tmp_path, CONFIG, params)
    _, loaded = weights.load(str(tmp_path))
    assert_same(loaded, jax.tree.map(lambda x: x.astype(jnp.float32), params))


@pytest.mark.parametrize(
    "config",
    [
        fakes.model(vocab_size=67, rope_scaling=(("rope_type", "linear"), ("factor", 2.0))),
        fakes.model(vocab_size=67, **BIASED),
        *(fakes.model_of_family(family, vocab_size=67) for family in fakes.OF_FAMILY),
    ],
    ids=["llama, linear scaling", "llama, biases", *fakes.OF_FAMILY],
)
def test_transformers_reads_what_we_save(config, tmp_path):
    transformers = pytest.importorskip("transformers")
    params = fakes.params(config)
    # Without a padding id of its own, the default of some classes is beyond so few tokens.
    weights.save(tmp_path, config, params, extra={"eos_token_id": 7, "pad_token_id": 0})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").eval()
    assert model.config.eos_token_id == 7
    tokens_BT = fake_checkpoints.tokens(2, 9, config.vocab_size)
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, tokens_BT)
    theirs_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    np.testing.assert_allclose(logits_BTV, theirs_BTV, atol=1e-4, rtol=1e-5)


IMPORTED = [
    *("llama, grouped heads, untied", "llama, llama3 scaling", "llama, linear scaling"),
    *("qwen2, tied, all heads share one key", "qwen2, later layers slide", "qwen3, untied"),
    *("gemma, tied, all heads share one key", "gemma2, tied, windows crossed"),
    "gemma2, no caps, untied, row as long as the window",
    "gemma3, five local layers to a global one, two rotary bases, linear scaling",
    *("llama, yarn with mscale", "llama, longrope beyond the first context"),
    *("llama, dynamic scaling within the context", "llama, biases of attention and MLP"),
    "llama, yarn with another attention factor, not cut to whole pairs",
    "llama, longrope with an attention factor",
    *("mistral, windows crossed", "mistral, tied, no window", "qwen3, attention bias"),
    *("phi3, partial rotation, windows crossed", "phi3, tied, whole rotation, no window"),
    "phi3, longrope of a part of each head, beyond the first context",
    *("olmo2, untied", "olmo2, tied, biases, linear scaling"),
    *("granite, untied", "granite, tied, biases", "smollm3, untied"),
    "smollm3, tied, biases, every second layer does not rotate and slides",
]
# What servers such as vLLM look up by name, older ones rope_theta and rope_scaling, newer ones
# rope_parameters.
SERVED = {
    *("architectures", "model_type", "torch_dtype", "vocab_size", "hidden_size", "head_dim"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "hidden_act"),
    *("rope_theta", "rope_scaling", "rope_parameters"),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_export_after_import_is_the_identity(name, tmp_path):
    """To the bit in every tensor, and to transformers in every setting that it computes with."""
    transformers = pytest.importorskip("transformers")
    family, changes, _ = SHAPES[name]
    model = fake_checkpoints.huggingface_model(family, **changes)
    config, params = weights.load(fake_checkpoints.saved(model, tmp_path / "in"))
    # Some classes have a default for it, so that it must be written, as --mode=export does.
    weights.save(
        tmp_path / "out", config, params, extra={"pad_token_id": model.config.pad_token_id}
    )
    theirs, ours = (
        safetensors.numpy.load_file(tmp_path / side / "model.safetensors") for side in ("in", "out")
    )
    assert theirs.keys() == ours.keys()
    for tensor, value in theirs.items():
        np.testing.assert_array_equal(ours[tensor], value, err_msg=tensor)
    before, after = (
        transformers.AutoConfig.from_pretrained(tmp_path / side).to_dict() for side in ("in", "out")
    )
    uncomputed = {"_name_or_path", "initializer_range", "no_rope_layer_interval"}
    if not config.windows:
        uncomputed.add("max_window_layers")
    assert {k: after[k] for k in before.keys() - uncomputed} == {
        k: before[k] for k in before.keys() - uncomputed
    }
    described = json.loads((tmp_path / "out" / "config.json").read_text())
    assert described.keys() >= SERVED | ({"sliding_window"} if config.windows else set())
    assert described["architectures"] == [type(model).__name__]


def test_a_model_larger_than_a_file_is_saved_in_several_that_replace_each_other(folder):
    transformers = pytest.importorskip("transformers")
    params = jax.tree.map(lambda x: x + 1.0, random_params())

    def files() -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    weights.save(folder, CONFIG, params, shard_bytes=3000)
    parts = [name for name in files() if name.endswith(".safetensors")]
    assert parts == [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    assert len(parts) > 3
    assert all((folder / name).stat().st_size < 6000 for name in parts)  # 3000 and a header
    assert_same(weights.load(str(folder))[1], params)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    theirs = model.state_dict()["model.layers.1.mlp.gate_proj.weight"].numpy()
    np.testing.assert_array_equal(theirs, params["layers"]["gate"][1].T)
    index = json.loads((folder / huggingface.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))

    weights.save(folder, CONFIG, random_params())
    assert files() == ["config.json", "model.safetensors"]
    assert_same(weights.load(str(folder))[1], random_params())


def test_a_fingerprint_tells_weights_that_were_trained_on_from_what_they_were(folder, tmp_path):
    before = weights.fingerprint(str(folder))
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert weights.fingerprint(str(copied)) == before
    rewrite(folder, lambda tensors: tensors.update({k: x * 1.01 for k, x in tensors.items()}))
    assert weights.fingerprint(str(folder)) != before
    assert weights.fingerprint("preset:tiny") == ""
    with pytest.raises(InputError, match="no such file or folder"):
        weights.fingerprint(str(tmp_path / "absent"))


def test_the_fingerprint_of_adapters_is_that_of_their_base_and_settings_too(folder, tmp_path):
    settings, file = tmp_path / "adapter" / adapters.CONFIG, adapters.WEIGHTS
    settings.parent.mkdir()
    settings.with_name(file).write_bytes(b"factors")
    found = []
    for scale, content in ((1, 1.0), (2, 1.0), (2, 1.01)):
        rewrite(folder, lambda tensors, c=content: tensors.update(norm=np.float32([c])))
        described = {"base_model_name_or_path": str(folder), "lora_alpha": scale}
        settings.write_text(json.dumps(described))
        found.append(weights.fingerprint(str(settings.parent)))
    assert len(set(found)) == 3
    moved = folder.rename(tmp_path / "moved")
    settings.write_text(json.dumps(described | {"base_model_name_or_path": str(moved)}))
    assert weights.fingerprint(str(settings.parent)) == found[-1]
    settings.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"adapter is an adapter of .*model: no such file"):
        weights.fingerprint(str(settings.parent))


def test_the_fingerprint_of_a_split_model_is_that_of_all_its_parts(tmp_path):
    parts = [tmp_path / f"model-0000{n}-of-00002.gguf" for n in (1, 2)]
    found = []
    for second in (b"GGUF", b"GGUF, trained on", None):
        parts[0].write_bytes(b"GGUF")
        parts[1].unlink(missing_ok=True)
        if second:
            parts[1].write_bytes(second)
        found.append(weights.fingerprint(str(parts[0])))
        assert weights.fingerprint(str(tmp_path)) == found[-1]
    assert len(set(found)) == 3


def test_values_in_a_saved_file_are_aligned(folder):
    with (folder / "model.safetensors").open("rb") as file:
        assert int.from_bytes(file.read(8), "little") % 8 == 0


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_checkpoints_of_other_precisions_load_with_their_exact_values(kind, tmp_path):
    torch = pytest.importorskip("torch")
    model = fake_checkpoints.huggingface_model().to(getattr(torch, kind))
    _, params = weights.load(fake_checkpoints.saved(model, tmp_path))
    expected = model.model.layers[1].mlp.gate_proj.weight.detach().float().numpy()
    np.testing.assert_array_equal(params["layers"]["gate"][1], expected.T)


def test_a_sharded_checkpoint_loads_as_the_whole_one(tmp_path):
    model = fake_checkpoints.huggingface_model()
    _, whole = weights.load(fake_checkpoints.saved(model, tmp_path / "whole"))
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    _, parts = weights.load(str(tmp_path / "parts"))
    assert_same(whole, parts)


def test_tensors_larger_than_a_block_are_joined_in_order(folder, monkeypatch):
    _, whole = weights.load(str(folder))
    monkeypatch.setattr(stored, "BLOCK_BYTES", 150)  # 3 rows of 12 floats
    _, pieces = weights.load(str(folder))
    assert_same(whole, pieces)


def test_put_receives_every_parameter_by_its_path_and_places_it(folder):
    seen = {}

    def put(path, value):
        seen[path] = value.shape
        return jax.device_put(value)

    _, params = weights.load(str(folder), "bfloat16", put=put)
    assert seen["layers/query"] == (2, 12, 4, 6)
    assert seen["head"] == (12, 19)
    assert len(seen) == len(jax.tree.leaves(params)) == 12


def test_loading_holds_little_beside_the_params(tmp_path):
    config = ModelConfig(
        family="llama",
        vocab_size=20_000,
        layers=4,
        width=512,
        heads=8,
        kv_heads=8,
        head_width=64,
        mlp_width=1024,
        tied=True,
    )
    weights.save(tmp_path, config, random_params(config))
    tracemalloc.start()
    _, params = weights.load(str(tmp_path), put=lambda path, value: value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sizes = [x.nbytes for x in jax.tree.leaves(params)]
    assert peak - sum(sizes) < 0.5 * max(sizes)  # `put` may hold one parameter more: 1.5


def test_a_tied_checkpoint_with_a_copy_of_the_embedding_as_head_loads(tmp_path):
    config = ModelConfig(**{**CONFIG.__dict__, "tied": True})
    weights.save(tmp_path, config, random_params(config))
    name = "model.embed_tokens.weight"
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[name]}))
    assert "head" not in weights.load(str(tmp_path))[1]
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[name] + 1}))
    with pytest.raises(InputError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        weights.load(str(tmp_path))


def test_what_other_tools_leave_beside_the_weights_does_no_harm(folder):
    """Rotary tables in the file, PyTorch's own file and an index of other files in the folder."""
    _, expected = weights.load(str(folder))
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
    rewrite(folder, lambda tensors: tensors.update(table))
    (folder / "pytorch_model.bin").write_bytes(b"\x80 not opened")
    (folder / huggingface.INDEX).write_text('{"weight_map": {"a": "gone.safetensors"}}')
    assert_same(weights.load(str(folder))[1], expected)
    (folder / "model.safetensors").unlink()
    (folder / huggingface.INDEX).unlink()
    with pytest.raises(InputError, match=r"\.bin files are not read: save the model with safe_"):
        weights.load(str(folder))


# GGUF


def write_gguf(
    path, config, params, kind=gguf.GGMLQuantizationType.F32, leave_out=(), more=lambda writer: None
):
    """As llama.cpp converts a Llama checkpoint: rows of queries and keys interleaved by head."""
    writer = gguf.GGUFWriter(path, "llama")
    more(writer)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    layers = jax.tree.map(np.asarray, params["layers"])
    tensors = {
        "token_embd.weight": params["embedding"],
        "output_norm.weight": params["final_norm"],
        "output.weight": params["head"].T,
    }
    for layer in range(config.layers):
        blk = f"blk.{layer}."
        for name, rotary in (("query", True), ("key", True), ("value", False)):
            w_OED = np.moveaxis(layers[name][layer], 0, -1)  # heads, their width, inputs
            if rotary:  # pairs (i, i + E/2) become neighbours
                half = config.head_width // 2
                w_OED = np.stack([w_OED[:, :half], w_OED[:, half:]], axis=2)
            tensors[f"{blk}attn_{name[0]}.weight"] = w_OED.reshape(-1, config.width)
        output = layers["output"][layer].reshape(-1, config.width).T
        tensors[f"{blk}attn_output.weight"] = output
        for ours, theirs in (("gate", "gate"), ("up", "up"), ("down", "down")):
            tensors[f"{blk}ffn_{theirs}.weight"] = layers[ours][layer].T
        tensors[f"{blk}attn_norm.weight"] = layers["attention_norm"][layer]
        tensors[f"{blk}ffn_norm.weight"] = layers["mlp_norm"][layer]
    for name, value in tensors.items():
        if name not in leave_out:
            value = np.ascontiguousarray(value, np.float32)
            used = kind if value.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(name, gguf.quantize(value, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_loads_with_its_rotary_pairs_put_back(tied, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_BYTES", 150)  # 3 rows of 12 floats: not a whole head
    params = random_params()
    write_gguf(tmp_path / "m.gguf", CONFIG, params, leave_out=["output.weight"] if tied else [])
    config, loaded = weights.load(str(tmp_path / "m.gguf"))
    assert config == ModelConfig(**{**CONFIG.__dict__, "tied": tied})
    expected = {k: v for k, v in params.items() if not (tied and k == "head")}
    assert_same(loaded, expected)


@pytest.mark.parametrize("name", ["M.GGUF", "blobs/0a1b2c", "alone/m.gguf"])
def test_a_gguf_loads_whatever_it_is_called_and_from_a_folder_of_its_own(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write_gguf(tmp_path / "whole", CONFIG, random_params())
    (tmp_path / "whole").rename(path)
    assert_same(weights.load(str(path))[1], random_params())
    if name == "alone/m.gguf":
        (path.parent / "config.json").write_text("{}")  # of the model that it was made from
        assert_same(weights.load(str(path.parent))[1], random_params())
        assert locate.path_of(str(path.parent)) == path


@pytest.mark.parametrize("family", fakes.OF_FAMILY)
def test_every_family_has_the_tensor_names_of_llama_cpp(family):
    """Hugging Face's name, which other tests check, and GGUF's mean one tensor."""
    arch = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(arch[FAMILIES[family].gguf], 2)
    for place in tensor_names.places(fakes.model_of_family(family)):
        theirs = names.get_name(place.huggingface.format(layer=1), (".weight", ".bias"))
        assert theirs == place.gguf.format(layer=1), place.path


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gemma3_text"])
def test_a_gguf_of_a_family_without_interleaved_pairs_loads(family, tmp_path):
    config = fakes.model_of_family(family, max_positions=64)
    params = jax.tree.map(np.asarray, fakes.params(config))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", FAMILIES[family].gguf)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    if config.windows:
        writer.add_sliding_window(max(config.windows))
        writer.add_sliding_window_pattern([window > 0 for window in config.windows])
    if config.attention_softcap:
        writer.add_attn_logit_softcapping(config.attention_softcap)
        writer.add_final_logit_softcapping(config.logit_softcap)
    if config.local_rope_theta:
        writer.add_float32("gemma3.rope.freq_base_swa", config.local_rope_theta)
    for place in tensor_names.places(config):
        value = functools.reduce(lambda tree, key: tree[key], place.path.split("/"), params)
        for layer, name in enumerate(tensor_names.names(place, place.gguf, config)):
            one = tensor_names.as_stored(place, value[layer] if place.stacked else value)
            # llama.cpp's conversion adds Gemma's offset to the weights of norms.
            offset = config.norm_offset if "norm" in name else 0.0
            writer.add_tensor(name, np.ascontiguousarray(one + np.float32(offset)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded_config, loaded = weights.load(str(tmp_path / "m.gguf"))
    # That one scale is known by the number of layers alone.
    assert loaded_config == dataclasses.replace(config, query_scalar=0.0)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-7), loaded, params)


@pytest.mark.parametrize(("kind", "error"), [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 2e-2)])
def test_quantised_ggufs_load_to_their_precision(kind, error, tmp_path):
    config = ModelConfig(
        **{**CONFIG.__dict__, "width": 64, "heads": 2, "head_width": 32, "mlp_width": 32}
    )
    params = random_params(config)
    write_gguf(tmp_path / "m.gguf", config, params, gguf.GGMLQuantizationType[kind])
    _, loaded = weights.load(str(tmp_path / "m.gguf"))
    difference = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), loaded, params)
    assert max(jax.tree.leaves(difference)) < 4 * error


def test_a_truncated_gguf_is_refused_wherever_it_ends(tmp_path):
    write_gguf(tmp_path / "whole.gguf", CONFIG, random_params())
    data = (tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (0, 3, 20, 100, 700, len(data) // 2, len(data) - 40):
        cut.write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"cut.gguf \({size} bytes\) is not a complete GGUF"):
            weights.load(str(cut))


def test_a_gguf_that_lacks_tensors_names_them(tmp_path):
    missing = ["blk.1.attn_k.weight", "output_norm.weight"]
    write_gguf(tmp_path / "m.gguf", CONFIG, random_params(), leave_out=missing)
    with pytest.raises(InputError, match=r"2 missing: output_norm.weight, blk.1.attn_k.weight"):
        weights.load(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GGUF", b"GGML", "is not a GGUF file: it begins with b'GGML'"),
        (b"GGUF\x03", b"GGUF\x01", "has GGUF version 1; only little-endian versions 2 and 3"),
        (
            b"general.architecture\x08",
            b"general.architecture\x63",
            "is not a complete GGUF file: its metadata has a value of unknown type 99",
        ),
        (b"llama", b"\xff\xff\xff\xff\xff", "is not a complete GGUF file: .*can't decode"),
    ],
)
def test_a_damaged_gguf_says_what_is_wrong(old, new, message, tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, CONFIG, random_params())
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        weights.load(str(path))


def test_a_gguf_of_an_unknown_quantisation_names_the_tensor(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(path, CONFIG, random_params())
    data, name = path.read_bytes(), b"output_norm.weight"
    at = data.index(name) + len(name) + 4 + 8  # behind the number of axes and the only axis
    for number, label in ((24, "I8"), (250, "250")):
        path.write_bytes(data[:at] + struct.pack("<I", number) + data[at + 4 :])
        with pytest.raises(
            InputError, match=rf"output_norm.weight \[12\] is stored as type {label}"
        ):
            weights.load(str(path))


# Bad input


def test_a_missing_source_says_what_may_be_named(tmp_path):
    for name in ("nowhere", "nowhere.gguf", "a/b.gguf", "/a/b/c", "./a"):
        with pytest.raises(InputError, match=f"{name}: no such file or folder.*hub id such as"):
            weights.load(name)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"model.bin is a file but not a .gguf"):
        weights.load(str(tmp_path / "model.bin"))


def test_an_unknown_dtype_names_the_known_ones(folder):
    with pytest.raises(InputError, match="'float8' is unknown; known: float32, bfloat16"):
        weights.load(str(folder), "float8")


def test_a_folder_without_config_or_weights_says_which(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds neither model.safetensors nor .*index.json"):
        weights.load(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json is not JSON"):
        weights.load(str(folder))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config.json is not a JSON object"):
        weights.load(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config.json cannot be read \(No such file"):
        weights.load(str(folder))


def test_a_truncated_safetensors_file_is_refused_wherever_it_ends(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for size in (0, 5, 8, 200, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"not a complete safetensors file.*{size} bytes"):
            weights.load(str(folder))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{]", "header is not JSON"),
        (b"[]", "header is not a JSON object"),
        (b'{"a": {"dtype": "F32"}}', "entry of a is not valid"),
        *(
            (
                b'{"a": {"dtype": "F32", "shape": [%b], "data_offsets": [%b, 8]}}' % pair,
                "entry of a is not valid",
            )
            for pair in ((b"2", b"-1e999"), (b"1e999", b"0"), (b"2.0", b"0"), (b"-2", b"16"))
        ),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "but 4 bytes"),
        (
            b'{"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}',
            "F8_E4M3.*known: F64",
        ),
        (b'{"a": {"dtype": "I4", "shape": [2], "data_offsets": [0, 1]}}', "dtype I4.*known: F64"),
    ],
)
def test_a_damaged_header_is_refused(header, message, folder):
    data = struct.pack("<Q", len(header)) + header + bytes(8)
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=message):
        weights.load(str(folder))


def test_every_tensor_that_does_not_fit_is_named_in_one_message(folder):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(24, np.float32)
        tensors["model.layers.1.mlp.up_proj.weight"] = np.zeros((12, 10), np.float32)

    rewrite(folder, change)
    with pytest.raises(InputError) as caught:
        weights.load(str(folder))
    message = str(caught.value)
    assert "1 missing: model.norm.weight" in message
    assert "1 unexpected: model.layers.0.self_attn.q_proj.bias" in message
    assert "model.layers.1.mlp.up_proj.weight is [12, 10], should be [10, 12]" in message


def test_a_vocabulary_that_does_not_fit_the_embedding_is_named(folder):
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"vocab_size": 21}))
    with pytest.raises(InputError, match="vocabulary has 21 tokens but the embedding 19 rows"):
        weights.load(str(folder))


def test_an_index_that_names_absent_files_is_refused(tmp_path):
    model = fake_checkpoints.huggingface_model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    absent = sorted(path.name for path in tmp_path.glob("*.safetensors"))[1]
    (tmp_path / absent).unlink()
    with pytest.raises(InputError, match=f"1 of them are not in the folder: {absent}"):
        weights.load(str(tmp_path))
    long = json.dumps({"weight_map": {"a": 300 * "x"}})
    for wrong in ("{}", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["b"]}}', long):
        (tmp_path / huggingface.INDEX).write_text(wrong)
        with pytest.raises(InputError, match="not a JSON object with a weight_map"):
            weights.load(str(tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan, 1e300])
def test_a_tensor_that_is_not_finite_is_named(value, dtype, folder):
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(tensors):
        tensors[name] = tensors[name].astype(np.float64)
        tensors[name][1, 2] = value

    rewrite(folder, spoil)
    with pytest.raises(InputError, match=f"{folder}: {name} holds NaN, inf or a number that"):
        weights.load(str(folder), dtype)


def test_a_tensor_of_a_gguf_that_is_not_finite_is_named(tmp_path):
    params = random_params()
    params["layers"]["up"][1, 0, 0] = np.inf
    write_gguf(tmp_path / "m.gguf", CONFIG, params)
    with pytest.raises(InputError, match=r"m\.gguf: blk\.1\.ffn_up\.weight holds NaN"):
        weights.load(str(tmp_path / "m.gguf"))


def test_a_failed_save_leaves_the_former_file_and_no_remains(folder):
    before = (folder / "model.safetensors").read_bytes()

    def values(name):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        safetensors_file.write(folder / "model.safetensors", {"a": (2,)}, np.float32, values)
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="taken: the model cannot be written there"):
        weights.save(tmp_path / "taken", CONFIG, random_params())


# Hub


def fake_hub(monkeypatch, fetch):
    hub = types.SimpleNamespace(snapshot_download=fetch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_a_hub_id_is_taken_from_the_cache_before_the_network(folder, monkeypatch):
    asked = []

    def fetch(name, local_files_only, **_):
        asked.append((name, local_files_only))
        return str(folder)

    fake_hub(monkeypatch, fetch)
    config, _ = weights.load("owner/tiny-model")
    assert config == CONFIG
    assert asked == [("owner/tiny-model", True)]


def test_a_cache_without_weights_is_completed_from_the_network(folder, tmp_path, monkeypatch):
    def fetch(name, local_files_only, **_):
        return str(tmp_path if local_files_only else folder)

    fake_hub(monkeypatch, fetch)
    assert locate.path_of("owner/tiny-model") == folder


def test_a_cache_that_lacks_a_file_of_the_weights_is_completed_from_the_network(
    folder, tmp_path, monkeypatch
):
    weights.save(tmp_path / "part", CONFIG, random_params(), shard_bytes=3000)
    next((tmp_path / "part").glob("*-00002-of-*.safetensors")).unlink()
    asked = []

    def fetch(name, local_files_only, allow_patterns, ignore_patterns):
        asked.append((allow_patterns, ignore_patterns))
        return str(tmp_path / "part" if local_files_only else folder)

    fake_hub(monkeypatch, fetch)
    assert locate.path_of("owner/tiny-model") == folder
    assert locate.path_of("owner/tiny-model", weights=False) == tmp_path / "part"
    assert ["*.safetensors" in patterns for patterns, _ in asked] == [True, True, False]
    assert asked[0][1] == ["consolidated*", "*/*.safetensors"]  # the same weights once more


def test_a_models_small_files_say_its_shape_before_weights_are_fetched(folder, monkeypatch):
    asked = []

    def fetch(name, allow_patterns, **_):
        asked.append("*.safetensors" in allow_patterns)
        return str(folder)

    fake_hub(monkeypatch, fetch)
    (folder / "model.safetensors").rename(folder / "elsewhere")
    assert weights.described("owner/tiny-model") == CONFIG
    assert asked == [False]


def test_adapters_of_the_hub_are_fetched_with_their_base(folder, tmp_path, monkeypatch):
    described = {"peft_type": "LORA", "base_model_name_or_path": "owner/base", "r": 2}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(described))
    safetensors.numpy.save_file({}, tmp_path / "adapter" / "adapter_model.safetensors")
    asked = []

    def fetch(name, local_files_only, allow_patterns, **_):
        asked.append((name, "*.safetensors" in allow_patterns))
        return str(folder if name == "owner/base" else tmp_path / "adapter")

    fake_hub(monkeypatch, fetch)
    assert weights.described("owner/adapter") == CONFIG
    assert asked == [("owner/adapter", False), ("owner/base", False)]
    asked.clear()
    assert_same(weights.load("owner/adapter")[1], random_params())
    assert asked == [("owner/adapter", True), ("owner/base", True)]


def test_a_hub_id_that_holds_no_config_json_is_answered_with_how_to_get_a_gguf(
    tmp_path, monkeypatch
):
    fake_hub(monkeypatch, lambda name, **_: str(tmp_path))
    with pytest.raises(InputError, match=r"owner/m-GGUF has no config.json .*hf download owner/m"):
        weights.described("owner/m-GGUF")


def test_a_hub_id_that_cannot_be_fetched_says_why(monkeypatch):
    def fetch(name, local_files_only, **_):
        raise ConnectionError("not cached" if local_files_only else "no network\ndetails")

    fake_hub(monkeypatch, fetch)
    with pytest.raises(
        InputError, match=r"owner/model is neither .* downloaded: no network. Check"
    ):
        weights.load("owner/model")


def test_a_hub_id_without_the_hub_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'score-jax\[hub\]'"):
        weights.load("owner/model")
