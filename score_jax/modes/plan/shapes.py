"""The large arrays of a config as shapes with shardings: no weights, no network.

    of_config(settings, mesh)   -> Shapes

Config and tokenizer are read from a local source. For a hub id the config must be in
model/published.py, and a stand-in for the tokenizer estimates how many tokens a text has.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.config.settings import LoraSettings, Settings, StageSettings
from score_jax.experiment import template_of
from score_jax.learner import lora, optimizer
from score_jax.model import families, weights
from score_jax.model.families import PRESET, ModelConfig
from score_jax.model.files import config_formats, locate, saved_params
from score_jax.model.published import PUBLISHED
from score_jax.problem import InputError, nearest
from score_jax.runtime import sharding
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
    """What stays on the chips between steps, as shapes with shardings, and the size of a batch."""

    model: ModelConfig
    template: Template
    mesh: Any  # a Mesh; an AbstractMesh where nothing is compiled
    stage: StageSettings  # the last RL stage
    trained: Params
    opt_state: Any
    frozen: Params  # the reference; with LoRA the weights under the adapters serve as reference
    lora: LoraSettings
    rows: int  # of an update
    columns: int  # of a row

    @property
    def weights(self) -> Params:
        """The weights that the rollout gets."""
        return lora.attach(self.frozen, self.trained, self.lora) if self.lora.rank else self.trained


def of_config(settings: Settings, mesh: sharding.AnyMesh) -> Shapes:
    """The shapes of a config on a mesh, whose devices need not be here.

    Raises: InputError for a hub id whose shape is unknown, a recipe without an RL stage, or sizes
      that do not divide by the mesh.
    """
    rl = [s for s in map(settings.stages.get, settings.recipe) if s and s.objective == "rl"]
    if not rl:
        raise InputError(
            f"the recipe {', '.join(settings.recipe)} has no RL stage, and --mode=plan plans "
            "the rollout and update of one. Plan a config that has an RL stage."
        )
    model, text = _model(settings.model.source, settings.model.tokenizer)
    template = _template(settings, model, text)
    adapters, rollout = settings.model.lora, settings.rollout
    frozen = weights.shapes(model, mesh, settings.model.dtype if adapters.rank else "float32")
    trained = lora.shapes(model, adapters, mesh) if adapters.rank else frozen
    turn = len(template.turn_end_ids) + len(template.instruction_ids)
    return Shapes(
        model=model,
        template=template,
        mesh=mesh,
        stage=rl[-1],
        trained=trained,
        opt_state=optimizer.shapes(settings.optimizer, trained, mesh),
        frozen=frozen,
        lora=adapters,
        rows=rollout.problems_per_step * rollout.samples_per_problem,
        columns=rollout.max_prompt_tokens
        + rollout.attempts * rollout.max_attempt_tokens
        + (rollout.attempts - 1) * turn,
    )


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
    described = path / "config.json"
    if described.exists() and not list(path.glob("*.safetensors")):
        return config_formats.from_huggingface(json.loads(described.read_text()), str(path)), None
    return locate.open_at(path).config, tokenizer.load(own_tokenizer or source)


def _template(s: Settings, model: ModelConfig, text: Tokenizer | None) -> Template:
    if text:
        return template_of(s, text)
    # `stand_in` counts the tokens that the model's own template would add with the text.
    s = dataclasses.replace(
        s,
        model=dataclasses.replace(s.model, template="plain", thinking=False),
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
    )
