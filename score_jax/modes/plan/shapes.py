"""The large arrays of a config as shapes with shardings: no weights, no network.

    of_config(settings, mesh)       -> Shapes
    shapes.changed(settings)        -> the same model with other settings

Config and tokenizer are read from a source: a folder, a config.json, a GGUF file, also in a bucket,
of which the small files are fetched. For a hub id the config must be in model/published.py, and a
stand-in for the tokenizer estimates how many tokens a text has.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.buckets import sources
from score_jax.config.settings import LoraSettings, OptimizerSettings, Settings, StageSettings
from score_jax.experiment import Experiment, template_of
from score_jax.learner import lora, optimizer
from score_jax.learner.step import TrainState
from score_jax.model import families, weights
from score_jax.model.families import PRESET, ModelConfig
from score_jax.model.files import adapters, config_formats, huggingface, locate, saved_params
from score_jax.model.published import PUBLISHED
from score_jax.problem import InputError, expanded, nearest
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
    converts: bool = False  # whether products of bfloat16 are computed in float32, after converting

    def changed(self, settings: Settings) -> "Shapes":
        """The same model on the same mesh with other settings; much faster than `of_config`.

        Raises: InputError as `of_config` does.
        """
        return self._with(settings, self.experiment.mesh)

    def on(self, mesh: Any, settings: Settings) -> "Shapes":
        """The same model on another mesh, with that mesh's settings. Raises: InputError."""
        return self._with(settings, mesh)

    def _with(self, settings: Settings, mesh: Any) -> "Shapes":
        s = settings
        base, params, opt_state = _arrays(
            self.experiment.model, mesh, s.model.dtype, s.model.lora, s.optimizer
        )
        experiment = dataclasses.replace(self.experiment, settings=s, mesh=mesh, base=base)
        state = self.state.replace(
            params=params, opt_state=opt_state, settings=experiment.learner_settings(self.stage)
        )
        return dataclasses.replace(self, experiment=experiment, state=state)

    @property
    def frozen(self) -> Params:
        """The reference; with LoRA the weights under the adapters serve as reference."""
        return self.experiment.base or self.state.params


def of_config(
    settings: Settings, mesh: Any, *, platform: str = "tpu", converts: bool = False
) -> Shapes:
    """The shapes of a config on a mesh, whose devices need not be here.

    Args:
      mesh: an AbstractMesh, or a Mesh to compile for.
      platform: what the devices of an AbstractMesh are: "tpu", "gpu" or "cpu".
      converts: as in Shapes.
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
    experiment = Experiment(settings, model, template, mesh, base, planned_for=platform)
    return Shapes(experiment, rl[-1], experiment.state_shapes(rl[-1]), converts)


@functools.lru_cache(maxsize=64)
def _arrays(
    model: ModelConfig, mesh: Any, dtype: str, adapters: LoraSettings, optimizing: OptimizerSettings
) -> tuple[Params | None, Params, Any]:
    """Frozen weights, trained params and optimizer state, as shapes; as Experiment has them."""
    base = weights.shapes(model, mesh, dtype) if adapters.rank else None
    if adapters.rank:
        params = lora.shapes(model, adapters, mesh)
    else:
        params = weights.shapes(model, mesh, "float32")
    return base, params, optimizer.shapes(optimizing, params, mesh)


def device_bytes(tree) -> int:
    """Bytes of a tree of shapes on one device."""
    return sum(
        jnp.dtype(x.dtype).itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(tree)
    )


def _of_file_name(name: str) -> str:
    """The published model that a GGUF is of by its name, NAME.QUANTISATION.gguf; else empty."""
    if not name.lower().endswith(".gguf"):
        return ""
    of = {full.rpartition("/")[2].lower(): full for full in PUBLISHED}
    return of.get(name.lower().removesuffix(".gguf").rpartition(".")[0], "")


def _model(source: str, own_tokenizer: str) -> tuple[ModelConfig, Tokenizer | None]:
    """A source's shape, and its tokenizer if that is here."""
    if source.startswith(PRESET):
        return families.preset(source), tokenizer.load(own_tokenizer or source)
    if source in PUBLISHED:
        return config_formats.from_huggingface(PUBLISHED[source], source), None
    path = expanded(sources.model(source, weights=False))
    path = path.parent if path.name == "config.json" else path
    if not path.exists() and (named := _of_file_name(path.name)):
        return config_formats.from_huggingface(PUBLISHED[named], named), None
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
