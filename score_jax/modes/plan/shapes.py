"""The large arrays of a config as shapes with shardings: no weights, no network.

    of_config(settings, mesh)   -> Shapes

Config and tokenizer are read from a local source. For a hub id the config must be in
model/published.py, and a stand-in for the tokenizer estimates how many tokens a text has.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.config.settings import Settings, StageSettings
from score_jax.experiment import Experiment, template_of
from score_jax.learner.step import TrainState
from score_jax.model import families, weights
from score_jax.model.families import PRESET, ModelConfig
from score_jax.model.files import adapters, config_formats, huggingface, locate, saved_params
from score_jax.model.published import PUBLISHED
from score_jax.problem import InputError, nearest
from score_jax.structs import Params
from score_jax.text import tokenizer
from score_jax.text.templates import Template
from score_jax.text.tokenizer import Tokenizer

# The most tokens that a prompt has in a vocabulary of 32,000 or more: one for every three
# characters (English has about four), and those that a template adds. A test compares this with a
# real tokenizer and all prompts.
CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS = 3, 16


@dataclasses.dataclass(frozen=True)
class Shapes:
    """An experiment whose weights are shapes with shardings, and one of its stages."""

    experiment: Experiment
    stage: StageSettings  # the last RL stage
    state: TrainState

    @property
    def frozen(self) -> Params:
        """The reference; with LoRA the weights under the adapters serve as reference."""
        return self.experiment.base or self.state.params


def of_config(settings: Settings, mesh: Any) -> Shapes:
    """The shapes of a config on a mesh, whose devices need not be here.

    Args:
      mesh: an AbstractMesh, or a Mesh to compile for.
    Raises: InputError for a hub id whose shape is unknown, a recipe without an RL stage, and as a
      run would.
    """
    rl = [s for s in map(settings.stages.get, settings.recipe) if s and s.objective == "rl"]
    if not rl:
        raise InputError(
            f"the recipe {', '.join(settings.recipe)} has no RL stage, and --mode=plan plans "
            "the rollout and update of one. Plan a config that has an RL stage."
        )
    model, text = _model(settings.model.source, settings.model.tokenizer)
    template = _template(settings, model, text)
    adapted = settings.model.lora.rank > 0
    base = weights.shapes(model, mesh, settings.model.dtype) if adapted else None
    experiment = Experiment(settings, model, template, mesh, base)
    return Shapes(experiment, rl[-1], experiment.state_shapes(rl[-1]))


def device_bytes(tree) -> int:
    """Bytes of a tree of shapes on one device."""
    return sum(
        jnp.dtype(x.dtype).itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(tree)
    )


def _model(source: str, own_tokenizer: str) -> tuple[ModelConfig, Tokenizer | None]:
    """A source's shape, and its tokenizer if that is here."""
    if source.startswith(PRESET):
        return families.preset(source), tokenizer.load(own_tokenizer or source)
    if source in PUBLISHED:
        return config_formats.from_huggingface(PUBLISHED[source], source), None
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(
            f"the shape of {source} is not known here, and --mode=plan fetches nothing. Save its "
            "config.json in a folder and name that as --config.model.source. "
            f"{nearest(source, PUBLISHED)}"
        )
    if run := saved_params.find(path):
        with saved_params.of_run(run):
            return _model(run.model.source, own_tokenizer or run.model.tokenizer)
    if path.is_dir() and (adapter := adapters.find(path)):
        with adapter.of_base():
            return _model(adapter.base, own_tokenizer or adapter.tokenizer)
    path = locate.path_of(str(path))
    if path.is_dir() and not huggingface.complete(path):
        return locate.config_of(path), None
    return locate.open_at(path).config, tokenizer.load(own_tokenizer or str(path))


def _template(s: Settings, model: ModelConfig, text: Tokenizer | None) -> Template:
    if text:
        return template_of(s, text)
    # `stand_in` counts the tokens that the model's own template would add with the text.
    s = dataclasses.replace(
        s,
        model=dataclasses.replace(s.model, template="plain", thinking=False, template_arguments={}),
        problems=dataclasses.replace(s.problems, system=""),
    )
    return template_of(s, stand_in(model))


def stand_in(model: ModelConfig) -> Tokenizer:
    """In place of a tokenizer that is not here: gives as many ids as a text has at most."""

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
        read_bytes=lambda: [b""] * model.vocab_size,
    )
