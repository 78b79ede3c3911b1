"""Estimates what a step needs on one chip by arithmetic: no compiler, no device, no weights.

    terms(shapes)   -> the terms, each with the setting that makes it smaller
    needed(terms)   -> bytes of the rollout and of the update, with what stays on the chip
    flops(shapes)   -> FLOPs of one update, over all chips

Weights and optimizer are exact: they have the shapes and shardings of a run. Of the rest only the
large values are estimated; compiling (compiled.py) finds the others.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from score_jax.bench import flops as bench_flops
from score_jax.experiment import Experiment
from score_jax.learner.loss import token_logprobs
from score_jax.model.families import ModelConfig
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.runtime import sharding

STAYS, ROLLOUT, UPDATE = "stays", "rollout", "update"  # when a term takes memory

_FSDP = "mesh.fsdp over more chips"
_ADVICE = {
    "weights": f"{_FSDP}; model.lora.rank trains adapters only",
    "optimizer": f"{_FSDP}; optimizer.name=adafactor; model.lora.rank",
    "reference": f"{_FSDP}; model.lora.rank needs no copy",
    "decode weights": "model.dtype=bfloat16; mesh.tensor",
    "cache": "fewer rollout.slots; shorter max_prompt_tokens, max_attempt_tokens",
    "prompts' cache": "more chips under mesh.data or mesh.fsdp; shorter max_prompt_tokens",
    "prompts' attention": "more chips under mesh.data or mesh.fsdp; shorter max_prompt_tokens",
    "gradients": f"{_FSDP}; model.lora.rank",
    "weights in model.dtype": f"{_FSDP}; model.dtype=bfloat16",
    "gathered weights": "mesh.tensor",
    "layers' inputs": "more memory.micro_batches; memory.remat=full",
    "attention scores": "more memory.micro_batches; model.attention=splash; mesh.tensor",
    "MLP of a layer": "more memory.micro_batches; mesh.tensor",
    "logits": "a smaller memory.chunk; mesh.tensor",
}


@dataclasses.dataclass(frozen=True)
class Term:
    """Bytes on one chip."""

    name: str
    when: str  # STAYS, ROLLOUT or UPDATE
    bytes: int

    @property
    def advice(self) -> str:
        """The settings that make it smaller."""
        return _ADVICE[self.name]


def terms(shapes: Shapes) -> list[Term]:
    """All terms of a config on the mesh of the shapes."""
    return [
        Term("weights", STAYS, device_bytes(shapes.state.params)),
        Term("optimizer", STAYS, device_bytes(shapes.state.opt_state)),
        Term("reference", STAYS, device_bytes(shapes.frozen)),
        *_rollout(shapes),
        *_update(shapes),
    ]


def needed(terms: Sequence[Term]) -> dict[str, int]:
    """Bytes on one chip while each of the two programs runs."""

    def total(*whens: str) -> int:
        return sum(term.bytes for term in terms if term.when in whens)

    return {program: total(STAYS, program) for program in (ROLLOUT, UPDATE)}


def largest(terms: Sequence[Term], program: str, count: int = 3) -> list[Term]:
    """The largest terms while a program runs."""
    there = [term for term in terms if term.when in (STAYS, program)]
    return sorted(there, key=lambda term: -term.bytes)[:count]


def queue(shapes: Shapes) -> int:
    """How many samples a slot decodes in turn."""
    _, samples, slots = _on_chip(shapes.experiment)
    return -(-samples // slots)


def _on_chip(experiment: Experiment) -> tuple[int, int, int]:
    """Problems, samples and slots of a step on one chip."""
    rollout = experiment.settings.rollout
    problems = -(-rollout.problems_per_step // sharding.batch_size(experiment.mesh))
    samples = problems * rollout.samples_per_problem
    return problems, samples, min(rollout.slots or samples, samples)


def _rollout(shapes: Shapes) -> list[Term]:
    e = shapes.experiment
    m, width, tensor = e.model, jnp.dtype(e.settings.model.dtype).itemsize, e.mesh.shape["tensor"]
    problems, _, slots = _on_chip(e)
    prompt = e.settings.rollout.max_prompt_tokens
    token = 2 * m.layers * m.kv_heads // tensor * m.head_width * width
    return [
        # Each chip, or each group of chips along `tensor`, decodes with a whole model.
        Term("decode weights", ROLLOUT, parameters(m) // tensor * width),
        Term("cache", ROLLOUT, slots * e.columns * token),
        Term("prompts' cache", ROLLOUT, problems * prompt * token),
        # Scores and softmax of one layer, float32.
        Term("prompts' attention", ROLLOUT, 2 * problems * m.heads // tensor * prompt**2 * 4),
    ]


def _update(shapes: Shapes) -> list[Term]:
    e, s = shapes.experiment, shapes.experiment.settings
    m, width = e.model, jnp.dtype(s.model.dtype).itemsize
    fsdp, tensor = e.mesh.shape["fsdp"], e.mesh.shape["tensor"]
    split = sharding.batch_size(e.mesh) * max(1, s.memory.micro_batches)
    rows, columns = -(-s.rollout.rows // split), e.columns
    tokens = rows * columns
    heads, mlp = (m.heads + m.kv_heads) * 2 * m.head_width // tensor, m.mlp_width // tensor
    # What the backward pass keeps of each token in each layer.
    kept = (
        m.width
        + {"full": 0, "products": heads + m.width + 2 * mlp, "none": 3 * heads + 6 * mlp}[
            s.memory.remat
        ]
    )
    trained = device_bytes(shapes.state.params)
    layer = (parameters(m) - _embeddings(m)) // m.layers // tensor
    chunk = token_logprobs.chunk_tokens(s.memory.chunk, m)
    scores = 0
    if s.model.attention == "xla":
        # Scores, softmax and the gradient of one layer, float32.
        scores = 3 * rows * (m.heads // tensor) * columns**2 * 4
    found = [
        # Of one micro-batch and, with several, their sum.
        Term("gradients", UPDATE, trained * (2 if s.memory.micro_batches > 1 else 1)),
        # Frozen weights are stored in model.dtype already.
        Term("weights in model.dtype", UPDATE, 0 if e.base else trained // 4 * width),
        # Of this layer and the next, and a share of the head with its gradient in float32.
        Term(
            "gathered weights",
            UPDATE,
            2 * layer * width + m.vocab_size * m.width // (tensor * fsdp) * (width + 4),
        ),
        Term("layers' inputs", UPDATE, m.layers * tokens * kept * width),
        Term("attention scores", UPDATE, scores),
        Term("MLP of a layer", UPDATE, 4 * tokens * mlp * width),
        Term("logits", UPDATE, 3 * chunk * m.vocab_size // tensor * 4),
    ]
    return [term for term in found if term.bytes]


def parameters(model: ModelConfig) -> int:
    """Number of weights of a model, without norms and biases."""
    m = model
    attention = 2 * (m.heads + m.kv_heads) * m.head_width * m.width
    return m.layers * (attention + 3 * m.width * m.mlp_width) + _embeddings(m)


def _embeddings(model: ModelConfig) -> int:
    return model.vocab_size * model.width * (1 if model.tied else 2)


def flops(shapes: Shapes) -> float:
    """FLOPs of an update over all chips if every row is full; only remat recomputes anything.

    Counted are the policy's forward and backward passes and the reference's forward pass, and with
    remat=full each layer's forward pass again. The head is applied to written tokens only, and its
    gradient is taken in the forward pass.
    """
    e, rollout = shapes.experiment, shapes.experiment.settings.rollout
    written = rollout.rows * rollout.attempts * rollout.max_attempt_tokens
    layers, head = bench_flops.forward(e.model, np.full(rollout.rows, float(e.columns)), written)
    again = e.settings.memory.remat == "full"
    return (4 + again) * layers + 4 * head
