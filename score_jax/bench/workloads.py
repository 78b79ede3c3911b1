"""What the benchmarks run: model shapes with random weights and synthetic prompts, or a config.

small    6 layers of 256, vocabulary 4,096; 64 problems, prompts and attempts of 64 tokens
real     the shape of SmolLM2-135M; 4 problems, otherwise the same
group    small's model; 8 problems with 8 samples each
skewed   small's model; 256 samples queued on 64 slots, attempts of very different lengths
long     the shape of Gemma 3 270M, vocabulary 262,144; 8 problems, rows of 1,024 tokens
large    the shape of Gemma 2 2B; 64 problems, attempts of 256 tokens; for an accelerator of 80 GB

No id ends an attempt: all attempts reach their limit, so that every engine writes as many tokens.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from score_jax.config.settings import LoraSettings, MemorySettings, OptimizerSettings, Settings
from score_jax.data import pipeline
from score_jax.data import problems as problem_sets
from score_jax.experiment import Experiment
from score_jax.model import transformer
from score_jax.model.cache_layouts import layout_for
from score_jax.model.families import FAMILIES, ModelConfig
from score_jax.model.files import config_formats
from score_jax.model.published import PUBLISHED
from score_jax.problem import InputError, nearest
from score_jax.rl.policy import Policy
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles
from score_jax.structs import Params, PromptBatch

SMALL = ModelConfig(
    family="llama",
    vocab_size=4096,
    layers=6,
    width=256,
    heads=8,
    kv_heads=4,
    head_width=32,
    mlp_width=768,
)
SMOLLM2_135M = ModelConfig(
    family="llama",
    vocab_size=49_152,
    layers=30,
    width=576,
    heads=9,
    kv_heads=3,
    head_width=64,
    mlp_width=1536,
    rope_theta=100_000.0,
    tied=True,
)
GEMMA3_270M = ModelConfig(
    family="gemma3_text",
    vocab_size=262_144,
    layers=18,
    width=640,
    heads=4,
    kv_heads=1,
    head_width=256,
    mlp_width=2048,
    rope_theta=1_000_000.0,
    local_rope_theta=10_000.0,
    norm_epsilon=1e-6,
    tied=True,
    max_positions=32_768,
    query_scalar=256.0,
    windows=((512,) * 5 + (0,)) * 3,
    **FAMILIES["gemma3_text"].fields,
)
GEMMA2_2B = config_formats.from_huggingface(PUBLISHED["google/gemma-2-2b"])
PROMPT_TOKENS, INSTRUCTION_TOKENS, SKEWED_MEAN = 64, 32, 0.25


@dataclasses.dataclass(frozen=True)
class Workload:
    """All inputs of a measured rollout or update."""

    name: str
    settings: EpisodeSettings
    params: Params  # what the model computes with
    prompts: PromptBatch
    limit_QGA: np.ndarray  # tokens of each attempt
    lora: LoraSettings = LoraSettings()  # noqa: RUF009 (frozen)
    base: Params | None = None  # with LoRA, the frozen weights
    adapters: Params | None = None  # with LoRA, the trained params
    memory: MemorySettings = MemorySettings()  # noqa: RUF009 (frozen)
    optimizer: OptimizerSettings = OptimizerSettings()  # noqa: RUF009 (frozen)
    mesh: Mesh | None = None  # None: one device
    attention: str = "xla"  # of an update

    @property
    def columns(self) -> int:
        """T: columns of a row."""
        prompts = self.prompts
        return self.settings.row_tokens(prompts.tokens.shape[1], prompts.instruction_tokens)


@dataclasses.dataclass(frozen=True)
class _Shape:
    model: ModelConfig
    problems: int
    samples: int = 1
    slots: int = 0
    attempt_tokens: int = 64
    skewed: bool = False


SHAPES = {
    "small": _Shape(SMALL, problems=64),
    "real": _Shape(SMOLLM2_135M, problems=4),
    "group": _Shape(SMALL, problems=8, samples=8),
    "skewed": _Shape(SMALL, problems=32, samples=8, slots=64, attempt_tokens=128, skewed=True),
    "long": _Shape(GEMMA3_270M, problems=8, attempt_tokens=464),
    "large": _Shape(GEMMA2_2B, problems=64, attempt_tokens=256),
}


def named(
    name: str,
    *,
    dtype: str = "float32",
    vocabulary: int = 0,
    shapes: bool = False,
) -> Workload:
    """One of SHAPES, also as w_NAME.

    Args:
      vocabulary: size in place of the shape's own; 0: the shape's own.
      shapes: params are only shapes, to compile with and not to run.

    Raises: InputError with the nearest name.
    """
    key = name.lower().replace("-", "_").removeprefix("w_")
    if key not in SHAPES:
        raise InputError(f"unknown --workload={name}. {nearest(key, SHAPES)}")
    compiles.set_matmul_precision(dtype)
    shape = SHAPES[key]
    if vocabulary:
        model = dataclasses.replace(shape.model, vocab_size=vocabulary)
        shape = dataclasses.replace(shape, model=model)
    rng = np.random.default_rng(0)
    tokens_QP = rng.integers(3, shape.model.vocab_size, (shape.problems, PROMPT_TOKENS))
    instruction = rng.integers(3, shape.model.vocab_size, INSTRUCTION_TOKENS)
    settings = EpisodeSettings(
        model=shape.model,
        policy=Policy(),
        attempts=2,
        samples=shape.samples,
        max_attempt_tokens=shape.attempt_tokens,
        instruction=tuple(instruction.tolist()),
        turn_end=(),
        end_ids=(),
        pad_id=0,
        slots=shape.slots,
        shrink=4 if shape.skewed else 0,
        dtype=dtype,
        cache_layout=layout_for(jax.default_backend()),
        untied=jax.default_backend() == "cpu",
    )
    limit_QGA = np.full((shape.problems, shape.samples, 2), shape.attempt_tokens, np.int32)
    if shape.skewed:
        limit_QGA = heavy_tailed(limit_QGA.shape, shape.attempt_tokens, seed=0)
    return Workload(
        name=key,
        settings=settings,
        params=_random_params(shape.model, shapes),
        prompts=PromptBatch(
            tokens=tokens_QP.astype(np.int32),
            length=np.full(shape.problems, PROMPT_TOKENS, np.int32),
            index=np.arange(shape.problems, dtype=np.int32),
            problems=(),
        ),
        limit_QGA=limit_QGA,
    )


def of_config(settings: Settings) -> Workload:
    """A config's model, template and first training batch; its model decides when attempts end."""
    experiment = Experiment.open(settings)
    where, rollout, template = settings.problems, settings.rollout, experiment.template
    batches = pipeline.batches(
        problem_sets.for_training(where, settings.seed).problems,
        template.first_turn,
        batch=rollout.problems_per_step,
        max_prompt_tokens=rollout.max_prompt_tokens,
        pad_id=template.tokenizer.pad_id,
        seed=settings.seed,
        turn=template.turn,
    )
    episode_settings, trained = experiment.episode_settings(), experiment.initial_params()
    shape = (rollout.problems_per_step, rollout.samples_per_problem, rollout.attempts)
    return Workload(
        name=f"config of {where.name}",
        settings=episode_settings,
        params=experiment.weights(trained),
        prompts=next(batches),
        limit_QGA=np.full(shape, rollout.max_attempt_tokens, np.int32),
        lora=settings.model.lora,
        base=experiment.base,
        adapters=trained if experiment.base else None,
        memory=settings.memory,
        optimizer=settings.optimizer,
        mesh=experiment.mesh if experiment.mesh.size > 1 else None,
        attention=settings.model.attention,
    )


def heavy_tailed(shape: tuple[int, ...], limit: int, seed: int) -> np.ndarray:
    """Lengths of 1 to `limit` with a mean near a quarter of it: log-normal, clipped.

    Half of them are shorter than a sixth of the limit; one in twenty or so reaches it.
    """
    drawn = np.random.default_rng([seed, 1]).lognormal(mean=0.0, sigma=1.1, size=shape)
    # Clipping shortens the tail, so the scale that gives the mean is found by bisection.
    low, high = 0.0, float(limit)
    for _ in range(50):
        scale = (low + high) / 2
        mean = np.clip(np.ceil(drawn * scale), 1, limit).mean()
        low, high = (scale, high) if mean < SKEWED_MEAN * limit else (low, scale)
    return np.clip(np.ceil(drawn * high), 1, limit).astype(np.int32)


def _random_params(model: ModelConfig, shapes: bool) -> Params:
    def make():
        return transformer.init(model, jax.random.key(0))

    return jax.eval_shape(make) if shapes else compiles.Compiled(make, compiles.OLDER_EMITTER)()
