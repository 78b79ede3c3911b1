"""What every mode of a run shares, made once from its settings: model, text, problems, mesh.

Experiment.open(settings) -> shapes, tokenizer, template, mesh; nothing large yet
.initial_params()         -> the loaded or random weights, on the mesh
.episode_settings(...)    -> what a rollout is compiled for
.texts(episode)           -> what the policy wrote, per row and attempt
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from score_jax import sharding
from score_jax.config import Settings, StageSettings, nearest
from score_jax.learner.likelihood import LikelihoodSettings
from score_jax.learner.step import LearnerSettings
from score_jax.model import sources, transformer, weights
from score_jax.model.families import PRESETS, ModelConfig
from score_jax.problem import InputError
from score_jax.rl.policy import Policy
from score_jax.rollout.episode import EpisodeSettings
from score_jax.structs import Episode, Params
from score_jax.text import templates, tokenizer
from score_jax.text.prompts import PROMPTS

PRESET = "preset:"
GREEDY = Policy(temperature=0.0)
LONG_ATTEMPT = 64  # tokens


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's fixed parts."""

    settings: Settings
    model: ModelConfig
    template: templates.Template
    mesh: Mesh
    source_params: Params | None  # loaded weights, on the mesh; None for a preset

    @classmethod
    def open(cls, settings: Settings) -> "Experiment":
        """Loads tokenizer and weights, and checks that they fit each other and the settings."""
        source = settings.model.source
        if not source.startswith(PRESET):
            source = str(sources.locate(source))  # a hub id's files lie in its cache
        mesh = sharding.make_mesh(settings.mesh.data, settings.mesh.fsdp, settings.mesh.tensor)
        text = tokenizer.load(settings.model.tokenizer or source)
        if settings.problems.prompt not in PROMPTS:
            raise InputError(
                f"config.problems.prompt={settings.problems.prompt!r} is unknown. "
                f"{nearest(settings.problems.prompt, PROMPTS)}"
            )
        prompt_format, instruction = PROMPTS[settings.problems.prompt]
        template = templates.make(
            settings.model.template,
            text,
            system=settings.problems.system,
            prompt_format=prompt_format,
            instruction=instruction,
        )
        model, params = _load(source, mesh)
        _check(settings, model, template, mesh)
        return cls(settings, model, template, mesh, params)

    def initial_params(self) -> Params:
        """The weights that training starts from, on the mesh; a fresh copy, safe to donate."""
        if self.source_params is not None:
            return jax.tree.map(jax.numpy.copy, self.source_params)
        key = jax.random.fold_in(jax.random.key(self.settings.seed), 0)
        shapes = jax.eval_shape(lambda: transformer.init(self.model, key))
        shardings = sharding.params_shardings(self.mesh, transformer.AXES, shapes)
        return jax.jit(lambda: transformer.init(self.model, key), out_shardings=shardings)()

    def episode_settings(
        self, *, policy: Policy | None = None, attempts: int = 0, samples: int = 0
    ) -> EpisodeSettings:
        """What a rollout is compiled for; by default the training rollout's."""
        rollout = self.settings.rollout
        return EpisodeSettings(
            model=self.model,
            policy=policy or self.policy,
            attempts=attempts or rollout.attempts,
            samples=samples or rollout.samples_per_problem,
            max_attempt_tokens=rollout.max_attempt_tokens,
            instruction=tuple(self.template.instruction_ids),
            turn_end=tuple(self.template.turn_end_ids),
            end_ids=self.template.tokenizer.end_ids,
            pad_id=self.template.tokenizer.pad_id,
            slots=rollout.slots,
            turn_rows=rollout.turn_rows,
            shrink=self._shrink(),
            dtype=self.settings.model.dtype,
        )

    def _shrink(self) -> int:
        """Short attempts end close together; there is little to gain from fewer slots."""
        rollout = self.settings.rollout
        if rollout.shrink >= 0:
            return rollout.shrink
        return 4 if rollout.max_attempt_tokens >= LONG_ATTEMPT else 0

    @property
    def policy(self) -> Policy:
        """The distribution that training samples from and learns."""
        rollout = self.settings.rollout
        return Policy(rollout.temperature, rollout.top_k, rollout.top_p)

    def learner_settings(self, stage: StageSettings) -> LearnerSettings:
        """What a stage's update is compiled for."""
        s = self.settings
        likelihood = LikelihoodSettings(
            model=self.model,
            policy=self.policy if stage.objective == "rl" else Policy(),
            dtype=s.model.dtype,
            chunk=s.memory.chunk,
            remat=s.memory.remat,
        )
        return LearnerSettings(
            likelihood=likelihood,
            optimizer=s.optimizer,
            samples=s.rollout.samples_per_problem if stage.objective == "rl" else 1,
            max_attempt_tokens=s.rollout.max_attempt_tokens,
            micro_batches=s.memory.micro_batches,
        )

    def texts(self, episode: Episode) -> list[list[str]]:
        """What the policy wrote, [B][A], end tokens left out. Fetches the episode's ids."""
        tokens_BT, attempt_BT, truncated_BA = jax.device_get(
            (episode.tokens, episode.attempt, episode.truncated)
        )
        attempts = range(1, truncated_BA.shape[1] + 1)
        ends = set(self.template.tokenizer.end_ids)
        return [
            [self._text(tokens_T[attempt_T == a], ends) for a in attempts]
            for tokens_T, attempt_T in zip(tokens_BT, attempt_BT, strict=True)
        ]

    def _text(self, ids_N: np.ndarray, ends: set[int]) -> str:
        ids = ids_N.tolist()
        if ids and ids[-1] in ends:
            ids.pop()
        return self.template.tokenizer.decode(ids)


def changed(texts_BA: Sequence[Sequence[str]]) -> np.ndarray:
    """Rows whose second attempt reads differently from the first, [B] bool."""
    return np.array([len(row) > 1 and row[0].strip() != row[1].strip() for row in texts_BA])


def _load(source: str, mesh: Mesh) -> tuple[ModelConfig, Params | None]:
    if source.startswith(PRESET):
        name = source.removeprefix(PRESET)
        if name not in PRESETS:
            raise InputError(
                f"config.model.source={source!r} is no preset. {nearest(name, PRESETS)}"
            )
        return PRESETS[name], None

    def put(path: str, value: np.ndarray) -> jax.Array:
        axes = transformer.AXES[path.rsplit("/", 1)[-1]]
        return jax.device_put(value, sharding.of_axes(mesh, axes, value.shape))

    return weights.load(source, put=put)


def _check(settings: Settings, model: ModelConfig, template: templates.Template, mesh: Mesh):
    """What can only be checked once the model and its tokenizer are known."""
    text = template.tokenizer
    if text.vocab_size > model.vocab_size:
        raise InputError(
            f"the tokenizer knows {text.vocab_size} tokens and the model's embedding has "
            f"{model.vocab_size} rows: they do not belong together. Set config.model.tokenizer to "
            "the tokenizer the model was trained with."
        )
    rollout = settings.rollout
    if rollout.attempts > 1 and not template.instruction_ids:
        raise InputError(
            "the instruction between two attempts is empty, so nothing asks for the second. Choose "
            "another config.problems.prompt, or set config.rollout.attempts to 1."
        )
    turn = len(template.instruction_ids) + len(template.turn_end_ids)
    longest = (
        rollout.max_prompt_tokens
        + rollout.attempts * rollout.max_attempt_tokens
        + (rollout.attempts - 1) * turn
    )
    if longest > model.max_positions:
        raise InputError(
            f"an episode can be {longest} tokens long (prompt {rollout.max_prompt_tokens}, "
            f"{rollout.attempts} attempts of {rollout.max_attempt_tokens}, instructions of {turn}) "
            f"and the model's context is {model.max_positions}. Lower "
            "config.rollout.max_attempt_tokens or config.rollout.max_prompt_tokens."
        )
    parts = sharding.batch_size(mesh)
    for name, count in (
        ("config.rollout.problems_per_step", rollout.problems_per_step),
        ("config.evaluation.batch", settings.evaluation.batch),
    ):
        if count % parts:
            raise InputError(
                f"{name}={count} cannot be split over {parts} devices (mesh data x fsdp): each "
                f"must hold the same number of problems. Set it to a multiple of {parts}."
            )
