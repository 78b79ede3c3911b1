"""A tiny model and tiny batches for tests: small enough to compile in a second or two.

Token 0 ends an attempt, and pads rows. Prompts and instructions hold no end token.
"""

import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.config.settings import LoraSettings, OptimizerSettings, StageSettings
from score_jax.learner import sampled_logprobs, step
from score_jax.learner.loss.token_logprobs import LikelihoodSettings
from score_jax.learner.micro_batches import Split
from score_jax.learner.settings import LearnerSettings
from score_jax.model import transformer
from score_jax.model.families import FAMILIES, ModelConfig
from score_jax.rl.policy import Policy
from score_jax.structs import Batch, Params

END = PAD = 0
NO_LOG: Any = mock.MagicMock()  # of a run whose lines nobody reads

MODEL = ModelConfig(
    family="llama",
    vocab_size=5,
    layers=1,
    width=16,
    heads=2,
    kv_heads=1,
    head_width=8,
    mlp_width=16,
    max_positions=64,
)


def model(**changes: Any) -> ModelConfig:
    """MODEL with other numbers."""
    return dataclasses.replace(MODEL, **changes)


# What models of a family may have besides: windows that short rows cross, caps that matter.
OF_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"windows": (3, 3)},
    "phi3": {"rotary_width": 4, "windows": (4, 4)},
    "olmo2": {},
    "granite": {
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
        "logits_divisor": 1.5,
        "tied": True,
    },
    "smollm3": {"rotary_layers": (True, False), "tied": True},
    "gemma": {"tied": True},
    "gemma2": {
        "tied": True,
        "windows": (3, 0),
        "attention_softcap": 1.0,
        "logit_softcap": 2.0,
        "query_scalar": 12.0,
    },
    "gemma3_text": {"tied": True, "windows": (2, 0), "local_rope_theta": 10.0},
}


def model_of_family(family: str, **changes: Any) -> ModelConfig:
    """MODEL with two layers and all that sets the family apart."""
    fields = dict(FAMILIES[family].fields) | OF_FAMILY[family] | changes
    return model(**{"family": family, "layers": 2, "heads": 4, "kv_heads": 2} | fields)


def params(config: ModelConfig = MODEL, seed: int = 0) -> Params:
    """Random weights; new arrays at every call, so that a train step may take them over.

    Drawn by numpy: compiling transformer.init takes longer than most tests.
    """
    draw = np.random.default_rng(seed)

    def leaf(path, x) -> jax.Array:
        noise = draw.normal(size=x.shape)
        name = path[-1].key
        if name.endswith("norm"):
            return jnp.asarray(1.0 - config.norm_offset + 0.1 * noise, jnp.float32)
        scale = 1.0 if name == "embedding" else config.width**-0.5
        return jnp.asarray(scale * noise, jnp.float32)

    shapes = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(leaf, shapes)


class Held:
    """Counts the memory of jax's arrays."""

    def __init__(self):
        self._before = jax.live_arrays()  # kept alive, as a new array may get an old one's id

    def since(self) -> int:
        """Bytes of all arrays that live now and were not there when this was made."""
        known = set(map(id, self._before))
        return sum(x.nbytes for x in jax.live_arrays() if id(x) not in known)


def stage(**changes: Any) -> StageSettings:
    """A stage; by default Stage II without a bonus."""
    return StageSettings(**{"steps": 10, "learning_rate": 1e-2} | changes)


def learner_settings(
    config: ModelConfig = MODEL,
    *,
    policy: Policy = Policy(),  # noqa: B008 (frozen)
    chunk: int = 0,
    remat: str = "products",
    optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008 (frozen)
    samples: int = 2,
    max_attempt_tokens: int = 3,
    split: Split = Split(),  # noqa: B008 (frozen)
    lora: LoraSettings = LoraSettings(),  # noqa: B008 (frozen)
    siblings: int = 1,
    dtype: str = "float32",
) -> LearnerSettings:
    """What an update of the tiny model is compiled for."""
    return LearnerSettings(
        likelihood=LikelihoodSettings(config, policy, dtype, chunk=chunk, remat=remat),
        optimizer=optimizer,
        samples=samples,
        max_attempt_tokens=max_attempt_tokens,
        split=split,
        lora=lora,
        siblings=siblings,
    )


@functools.partial(jax.jit, static_argnames=("choices", "settings"))
def loss_gradient(params, reference, batch, coefficients, *, choices, settings, base=None):
    """`step.loss_gradient` with the log-probs of its KL terms, in one program."""
    hidden = choices.kl_estimator == "exact"
    if reference is not None:
        known = sampled_logprobs.of(params, reference, batch, settings, base=base, hidden=hidden)
        batch = batch.replace(logprobs=known)
    return step.loss_gradient(
        params,
        batch,
        coefficients,
        choices=choices,
        settings=settings,
        base=base,
        reference=reference if hidden else None,
    )


def row(*parts: tuple[int, list[int]], columns: int) -> tuple[np.ndarray, np.ndarray, int]:
    """One row from (attempt, ids) parts, right-padded: its tokens, attempt ids and length.

    row((0, [1, 2]), (1, [3, END]), (0, [1]), (2, [END]), columns=8)
    """
    tokens, attempt = np.full(columns, PAD, np.int32), np.zeros(columns, np.int32)
    length = 0
    for who, ids in parts:
        tokens[length : length + len(ids)] = ids
        attempt[length : length + len(ids)] = who
        length += len(ids)
    return tokens, attempt, length


def batch(
    *,
    problems: int = 2,
    samples: int = 2,
    attempts: int = 2,
    max_attempt_tokens: int = 3,
    config: ModelConfig = MODEL,
    seed: int = 0,
) -> Batch:
    """Random episodes with prompts of one to three tokens and attempts of every length.

    Rewards differ between neighbouring samples of a problem, in every attempt. Behaviour log-probs
    are random numbers of the size that a random policy has.
    """
    draw = np.random.default_rng(seed)
    columns = 3 + attempts * max_attempt_tokens + 2 * (attempts - 1)
    rows = []
    for _ in range(problems):
        prompt = draw.integers(1, config.vocab_size, draw.integers(1, 4)).tolist()
        for _ in range(samples):
            parts: list[tuple[int, list[int]]] = [(0, prompt)]
            for a in range(1, attempts + 1):
                written = draw.integers(1, config.vocab_size, draw.integers(1, max_attempt_tokens))
                parts += [(a, [*written.tolist(), END]), (0, [1, 2])]
            rows.append(row(*parts[:-1], columns=columns))
    tokens_BT, attempt_BT, length_B = (np.stack(x) for x in zip(*rows, strict=True))
    logp_BT = np.where(attempt_BT > 0, -draw.uniform(0.5, 3.0, tokens_BT.shape), 0.0)
    shape = (problems * samples, attempts)
    q, g, a = np.indices((problems, samples, attempts))
    reward_QGA = (g + a * q) % 2
    fields: dict[str, Any] = {  # numpy, which a test alters at no cost
        "tokens": tokens_BT,
        "attempt": attempt_BT,
        "logp": logp_BT.astype(np.float32),
        "length": length_B,
        "reward": reward_QGA.reshape(shape).astype(np.float32),
        "truncated": np.zeros(shape, bool),
    }
    return Batch(**fields)
