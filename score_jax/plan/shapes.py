"""A config's experiment without its weights: shapes and shardings of everything, and no network.

    open_shapes(settings, mesh)   -> Shapes: the experiment, and what rollout and update are given

A local source is asked for its own shape and tokenizer; of a hub id the shape must be in PUBLISHED,
and its tokenizer is stood in for by one that reckons how many tokens a text has.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from score_jax import sharding
from score_jax.config import Settings, StageSettings, nearest
from score_jax.experiment import Experiment
from score_jax.learner import lora, step
from score_jax.learner.step import TrainState
from score_jax.model import config_formats, families, runs, sources, transformer
from score_jax.model.families import PRESET, ModelConfig
from score_jax.problem import InputError
from score_jax.structs import Params
from score_jax.text import tokenizer
from score_jax.text.tokenizer import Tokenizer

# What the config.json of published models says, as far as families.FAMILIES has no default.
_GEMMA2_2B = {
    "model_type": "gemma2",
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 9216,
    "max_position_embeddings": 8192,
}
_GEMMA2_9B = _GEMMA2_2B | {
    "hidden_size": 3584,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
}
_LLAMA31_8B = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b-it": _GEMMA2_2B,
    "google/gemma-2-2b": _GEMMA2_2B,
    "google/gemma-2-9b-it": _GEMMA2_9B,
    "google/gemma-2-9b": _GEMMA2_9B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA31_8B,
    "meta-llama/Llama-3.1-8B": _LLAMA31_8B,
}

# At most this many tokens has a text of the prompts in a vocabulary of 32,000 or more: one for every
# three characters (English has some four), and what a template puts around it. Tests hold this
# against real tokenizers and all prompts.
CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS = 3, 16


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What a step's two programs are given, as shapes with shardings."""

    experiment: Experiment
    stage: StageSettings  # whose update it is
    weights: Params  # what the rollout is given: all weights, with LoRA adapters among them
    state: TrainState
    reference: Params
    base: Params | None  # with LoRA, the frozen weights


def open_shapes(settings: Settings, mesh) -> Shapes:
    """The shapes of a config's last RL stage on a mesh, whose devices need not be here.

    Raises: InputError for a hub id whose shape is unknown, or settings that do not fit the mesh.
    """
    stages = [settings.stages[name] for name in settings.recipe]
    rl = [stage for stage in stages if stage.objective == "rl"]
    if not rl:
        raise InputError(
            f"the recipe {', '.join(settings.recipe)} has no RL stage, and --mode=plan compiles "
            "such a stage's rollout and update. Plan a config that has one."
        )
    # Text is stood in for, so its form is not looked at.
    plain = dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, template="auto", thinking=False),
        problems=dataclasses.replace(settings.problems, system=""),
    )
    model, text = _model(settings.model.source, settings.model.tokenizer)
    frozen = settings.model.lora.rank > 0
    weights = _weights(model, mesh, settings.model.dtype if frozen else "float32")
    experiment = Experiment.of(plain, model, text, mesh, weights if frozen else None)
    trained = lora.shapes(model, settings.model.lora, mesh) if frozen else weights
    learner = experiment.learner_settings(rl[-1])
    opened = jax.eval_shape(lambda params: step.init(params, learner), trained)
    state = opened.replace(
        step=_placed(opened.step, sharding.replicated(mesh)),
        params=trained,
        opt_state=_as_params(opened.opt_state, trained, mesh),
    )
    return Shapes(
        experiment=experiment,
        stage=rl[-1],
        weights=experiment.weights(trained),
        state=state,
        reference={} if frozen else weights,
        base=weights if frozen else None,
    )


def device_bytes(tree) -> int:
    """Bytes of a tree of shapes on one device."""
    return sum(
        jnp.dtype(x.dtype).itemsize * _size(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(tree)
    )


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _model(source: str, own_tokenizer: str) -> tuple[ModelConfig, Tokenizer]:
    if source.startswith(PRESET):
        return families.preset(source), tokenizer.load(own_tokenizer or source)
    if source in PUBLISHED:
        model = config_formats.from_huggingface(PUBLISHED[source], source)
        return model, _reckoning(model)
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(
            f"the shape of {source} is not known here, and --mode=plan fetches nothing. Save its "
            "config.json in a folder and name that as --config.model.source, or plan one of these: "
            f"{', '.join(PUBLISHED)}. {nearest(source, PUBLISHED)}"
        )
    described = path / "config.json"
    if path.is_dir() and described.exists() and not list(path.glob("*.safetensors*")):
        if not runs.find(path):
            model = config_formats.from_huggingface(json.loads(described.read_text()), str(path))
            return model, _reckoning(model)
    if run := runs.find(path):
        with runs.of_run(run):
            return _model(run.model.source, own_tokenizer or run.model.tokenizer)
    return sources.open_at(path).config, tokenizer.load(own_tokenizer or source)


def _reckoning(model: ModelConfig) -> Tokenizer:
    """In place of a tokenizer that is not here: as many tokens as a text has at most."""

    def encode(text: str) -> list[int]:
        return [0] * (len(text) // CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS)

    return Tokenizer(
        encode_start=encode,
        encode_continued=encode,
        decode_ids=lambda ids: "",
        vocab_size=model.vocab_size,
        pad_id=0,
        end_ids=(1, 2),
        bos_id=None,
        special={},
    )


def _weights(model: ModelConfig, mesh, dtype: str) -> Params:
    shapes = jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))
    shardings = sharding.params_shardings(mesh, transformer.AXES, shapes)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), shapes, shardings)


def _as_params(opt_state, params: Params, mesh):
    """Moments lie as the params do; what is of another shape is copied to every device."""
    known = {_keys(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}

    def place(path, x):
        like = known.get(_keys(path))
        same = like is not None and like.shape == x.shape
        return _placed(x, like.sharding if same else sharding.replicated(mesh))

    return jax.tree_util.tree_map_with_path(place, opt_state)


def _keys(path) -> tuple[str, ...]:
    """The names of a path that are those of params: dict keys."""
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _placed(x, where) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
