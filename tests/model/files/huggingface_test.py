"""Folders as tools save them: names with and without wrappers, one or two ends of the model."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

from score_jax.model import weights
from score_jax.model.files import huggingface
from score_jax.problem import InputError
from tests import fakes

MODEL = fakes.model(layers=2)
TIED = dataclasses.replace(MODEL, tied=True)
HEAD, EMBEDDING = huggingface.HEAD, huggingface.EMBEDDING


def save(folder, config=MODEL, rename=lambda name: name, leave_out=(), shards=1, **described):
    """A folder whose tensors and config.json are changed; returns the params that are in it."""
    params = fakes.params(config)
    weights.save(folder, config, params)
    found = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = {rename(name): found[name] for name in found if name not in leave_out}
    (folder / "model.safetensors").unlink()
    if shards == 1:
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    else:
        files = {name: f"model-{1 + i % shards:05}.safetensors" for i, name in enumerate(tensors)}
        for file in set(files.values()):
            part = {name: tensors[name] for name in tensors if files[name] == file}
            safetensors.numpy.save_file(part, folder / file)
        index = "\ufeff" + json.dumps({"metadata": None, "weight_map": files})
        (folder / huggingface.INDEX).write_text(index)
    change(folder, **described)
    return params


def change(folder, **described):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | described))


def assert_loads(folder, expected, config=MODEL):
    found, params = weights.load(str(folder))
    assert found == config
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def put_before(inner: str, outer: str):
    """Renames "model.X" to inner + X, and the head to outer + its name."""
    return lambda name: (outer + name if name == HEAD else inner + name.removeprefix("model."))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("", ""),  # saved by AutoModel
        ("transformer.", ""),
        ("transformer.", "transformer."),
        ("language_model.model.", "language_model."),  # transformers before 4.52
        ("model.language_model.", ""),  # and since then
        ("base_model.model.model.", "base_model.model."),  # a peft model's own
        ("module.model.", "module."),
        ("_orig_mod.model.", "_orig_mod."),
        ("pretrained_model.model.", "pretrained_model."),
    ],
)
def test_names_inside_of_a_wrapper_are_put_right(tmp_path, inner, outer, shards):
    params = save(tmp_path, rename=put_before(inner, outer), shards=shards)
    assert_loads(tmp_path, params)


@pytest.mark.parametrize("inner", ["model.", "", "language_model.model."])
def test_a_tied_model_may_keep_the_embedding_or_the_head_alone(tmp_path, inner):
    params = save(tmp_path, TIED, put_before(inner, ""))
    assert_loads(tmp_path, params, TIED)
    as_head = put_before(inner, "")
    params = save(tmp_path, TIED, lambda name: HEAD if name == EMBEDDING else as_head(name))
    assert_loads(tmp_path, params, TIED)


def test_a_folder_that_forgot_that_head_and_embedding_are_one_is_read_as_tied(tmp_path, caplog):
    params = save(tmp_path, TIED, tie_word_embeddings=False)
    assert_loads(tmp_path, params, TIED)
    assert "does not say tie_word_embeddings, but lm_head.weight is in no file" in caplog.text
    params = save(tmp_path, TIED, lambda n: HEAD if n == EMBEDDING else n, tie_word_embeddings=None)
    assert_loads(tmp_path, params, TIED)
    assert "but model.embed_tokens.weight is in no file" in caplog.text


@pytest.mark.parametrize(
    ("inner", "classes"),
    [
        ("", ["LlamaForCausalLM"]),  # saved by AutoModel, which leaves every head out
        ("model.", ["LlamaModel"]),
        ("model.", ["LlamaForSequenceClassification"]),
        ("model.", None),
    ],
)
def test_a_head_that_a_class_without_one_has_not_saved_is_missing(tmp_path, inner, classes):
    save(tmp_path, MODEL, put_before(inner, ""), [HEAD], architectures=classes)
    with pytest.raises(InputError, match=r"1 missing: lm_head.weight"):
        weights.load(str(tmp_path))


def test_a_second_head_is_not_taken_for_the_embedding(tmp_path):
    save(tmp_path, MODEL, lambda name: f"other.{HEAD}" if name == EMBEDDING else name)
    with pytest.raises(InputError, match=f"1 unexpected: other.{HEAD}"):
        weights.load(str(tmp_path))


def test_two_models_in_one_folder_are_not_chosen_between(tmp_path):
    save(tmp_path)
    path = tmp_path / "model.safetensors"
    found = safetensors.numpy.load_file(path)
    two = found | {f"reference.{name}": value for name, value in found.items()}
    safetensors.numpy.save_file(two, path)
    with pytest.raises(InputError, match=r"holds 2 models, .* with 'model.', 'reference.model.'"):
        weights.load(str(tmp_path))
    part = {n: v for n, v in found.items() if "mlp" not in n and n != EMBEDDING}
    two = found | {n.removeprefix("model."): v for n, v in part.items()}
    safetensors.numpy.save_file(two, path)
    with pytest.raises(InputError, match=r"unexpected: .*layers.0.input_layernorm.weight"):
        weights.load(str(tmp_path))
    plain = {name.removeprefix("model."): value for name, value in found.items()}
    twice = plain | {"model.norm.weight": found["model.norm.weight"]}
    safetensors.numpy.save_file(twice, path)
    with pytest.raises(InputError, match=r"tensors twice, under two names: model.norm.weight"):
        weights.load(str(tmp_path))


def test_a_byte_order_mark_and_nulls_do_no_harm(tmp_path):
    nothing = dict.fromkeys(
        ("rope_scaling", "quantization_config", "head_dim", "pad_token_id", "sliding_window"), None
    )
    params = save(tmp_path, shards=2, **nothing)
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert_loads(tmp_path, params)


def test_pickles_are_never_opened_and_the_command_that_converts_them_works(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    params = save(tmp_path)
    values = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    pickled = {name: torch.tensor(value) for name, value in values.items()}
    torch.save(pickled, tmp_path / "pytorch_model.bin")

    def never(*_, **__):
        raise AssertionError("a pickle was opened")

    with monkeypatch.context() as patched:
        for name in ("load", "loads", "Unpickler"):
            patched.setattr(pickle, name, never)
        with pytest.raises(InputError, match=r"\.bin files are not read.*runs the code") as caught:
            weights.load(str(tmp_path))
    exec(str(caught.value).split('python -c "')[1].removesuffix('"'))
    assert (tmp_path / "model.safetensors").exists()
    (tmp_path / "pytorch_model.bin").unlink()
    jax.tree.map(np.testing.assert_array_equal, weights.load(str(tmp_path))[1], params)


def test_weights_under_other_names_are_listed(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "consolidated.safetensors")
    with pytest.raises(InputError, match=r"It holds consolidated.safetensors: fetch model.safe"):
        weights.load(str(tmp_path))


def test_a_git_lfs_pointer_in_place_of_the_weights_is_named(tmp_path):
    save(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 988097824\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(InputError, match=r"model.safetensors is not the file .*Git LFS.*lfs pull"):
        weights.load(str(tmp_path))


def test_a_folder_is_complete_when_all_files_of_its_index_are_there(tmp_path):
    assert not huggingface.complete(tmp_path)
    save(tmp_path, shards=3)
    assert huggingface.complete(tmp_path)
    (tmp_path / "model-00002.safetensors").unlink()
    assert not huggingface.complete(tmp_path)
    (tmp_path / huggingface.INDEX).write_text("{")
    assert not huggingface.complete(tmp_path)
