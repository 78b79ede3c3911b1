"""Estimates what a step needs on one device by arithmetic: no compiler, no device, no weights.

    terms(shapes)   -> the terms, each with the setting that makes it smaller
    needed(terms)   -> bytes of each program, with what stays on the device
    flops(shapes)   -> FLOPs of one update, over all devices

Weights and optimizer are exact: they have the shapes and shardings of a run. The rest is what
working.py adds up from these numbers. RESTORE is what a run holds that resumes, or starts: what
stays, and nothing twice.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from score_jax.bench import flops as bench_flops
from score_jax.evaluation import shading
from score_jax.experiment import GREEDY, Experiment
from score_jax.learner.loss import token_logprobs
from score_jax.model import attention
from score_jax.model.families import ModelConfig
from score_jax.modes.plan import working
from score_jax.modes.plan.shapes import Shapes, device_bytes
from score_jax.modes.plan.working import Numbers
from score_jax.runtime import sharding

# When a term takes memory.
STAYS, ROLLOUT, UPDATE, EVALUATION, RESTORE = "stays", "rollout", "update", "evaluation", "restore"
PROGRAMS = (ROLLOUT, UPDATE, EVALUATION, RESTORE)

_MANY = 10_000  # problems: evaluation.problems=0 is all of them
_FSDP = "mesh.fsdp over more devices"
_PARTS = "more memory.micro_batches"
_PROMPTS = "more devices under mesh.data or mesh.fsdp; shorter max_prompt_tokens"
_ADVICE = {
    "weights": f"{_FSDP}; model.lora.rank trains adapters only",
    "optimizer": f"{_FSDP}; optimizer.name=adafactor; model.lora.rank",
    "reference": f"{_FSDP}; model.lora.rank needs no copy",
    "decode weights": "model.dtype=bfloat16; mesh.tensor",
    "cache": "fewer rollout.slots, in evaluations evaluation.batch; shorter max_prompt_tokens, "
    "max_attempt_tokens",
    "prompts' cache": _PROMPTS,
    "prompts' attention": _PROMPTS,
    "fed instructions": "smaller rollout.turn_rows; shorter max_attempt_tokens",
    "gradients": f"{_FSDP}; model.lora.rank",
    "weights in model.dtype": f"{_FSDP}; model.dtype=bfloat16",
    "gathered weights": "mesh.tensor",
    "layers' inputs": f"{_PARTS}; memory.remat=full",
    "attention scores": f"{_PARTS}; memory.remat=full; model.attention=splash or cudnn; "
    "mesh.tensor",
    "values of a layer": f"{_PARTS}; mesh.tensor",
    "logits": "a smaller memory.chunk; mesh.tensor",
    "float32 copies": "fewer rollout.slots; a device with bfloat16; model.dtype=float32",
}


@dataclasses.dataclass(frozen=True)
class Term:
    """Bytes on one device."""

    name: str
    when: str  # STAYS or one of PROGRAMS
    bytes: int

    @property
    def advice(self) -> str:
        """The settings that make it smaller."""
        return _ADVICE[self.name]


def terms(shapes: Shapes) -> list[Term]:
    """All terms of a config on the mesh of the shapes."""
    n = numbers(shapes)
    found = {
        ROLLOUT: working.rollout(n),
        UPDATE: working.update(n),
        EVALUATION: working.evaluation(n),
    }
    return [
        Term("weights", STAYS, device_bytes(shapes.state.params)),
        Term("optimizer", STAYS, device_bytes(shapes.state.opt_state)),
        Term("reference", STAYS, device_bytes(shapes.frozen)),
        *[
            Term(name, program, int(size))
            for program, values in found.items()
            for name, size in values.items()
            if size
        ],
    ]


def needed(terms: Sequence[Term]) -> dict[str, int]:
    """Bytes on one device while each of the programs runs."""

    def total(*whens: str) -> int:
        return sum(term.bytes for term in terms if term.when in whens)

    return {program: total(STAYS, program) for program in PROGRAMS}


def largest(terms: Sequence[Term], program: str, count: int = 3) -> list[Term]:
    """The largest terms while a program runs."""
    there = [term for term in terms if term.when in (STAYS, program)]
    return sorted(there, key=lambda term: -term.bytes)[:count]


def queue(shapes: Shapes) -> int:
    """How many samples a slot decodes in turn."""
    return -(-samples(shapes.experiment) // _slots(shapes.experiment))


def samples(experiment: Experiment) -> int:
    """Samples of a step on one device, which are the most slots it can use."""
    return _problems(experiment) * experiment.settings.rollout.samples_per_problem


def _problems(experiment: Experiment) -> int:
    problems = experiment.settings.rollout.problems_per_step
    return -(-problems // sharding.batch_size(experiment.mesh))


def _slots(experiment: Experiment) -> int:
    most = samples(experiment)
    return min(experiment.settings.rollout.slots or most, most)


def numbers(shapes: Shapes) -> Numbers:
    """What the arithmetic needs to know of a config, on one device."""
    e, s = shapes.experiment, shapes.experiment.settings
    m, split = e.model, shapes.state.settings.split
    shards, tensor = sharding.batch_size(e.mesh), e.mesh.shape["tensor"]
    columns, slots = e.columns, _slots(e)
    test = e.episode_settings(policy=GREEDY, samples=1, attempts=s.evaluation.attempts)
    own = e.instruction_tokens
    turns = [len(test.turn_end) + (own or len(test.before(a))) for a in range(2, test.attempts + 1)]
    return Numbers(
        layers=m.layers,
        width=m.width,
        heads=m.heads // tensor,
        kv_heads=m.kv_heads // tensor,
        head_width=m.head_width,
        mlp=m.mlp_width // tensor,
        vocabulary=m.vocab_size // tensor,
        tied=m.tied,
        bytes=jnp.dtype(s.model.dtype).itemsize,
        converts=s.model.dtype == "bfloat16" and (shapes.converts or e.platform == "cpu"),
        by_head=e.platform == "cpu",
        second_head=m.tied if e.platform == "cpu" else e.platform == "tpu" and tensor == 1,
        prompt_copies=3 if e.platform == "tpu" else 2,
        shards=e.mesh.shape["fsdp"],
        trained=device_bytes(shapes.state.params),
        rank=s.model.lora.rank,
        rows=-(-s.rollout.rows // (shards * split.parts)),
        columns=columns,
        written=min(s.rollout.attempts * s.rollout.max_attempt_tokens, columns),
        parts=split.parts,
        remat=s.memory.remat,
        chunk=token_logprobs.chunk_tokens(s.memory.chunk, m),
        pairs=_pairs(columns) if s.model.attention == "xla" else 0,
        # As the TPU's compiler does where it splits the layers along `tensor` too.
        narrower=sum(split.columns(columns)[:-1]) / columns if tensor > 1 else 0.0,
        problems=_problems(e),
        slots=slots,
        queued=slots < samples(e),
        prompt=s.rollout.max_prompt_tokens,
        fed=max(turns, default=0),
        turn_rows=min(s.rollout.turn_rows or max(1, slots // 16), slots),
        test_slots=-(-e.evaluation_rows(s.evaluation.batch) // shards),
        test_columns=test.row_tokens(s.rollout.max_prompt_tokens, own),
        shaded_rows=-(-shading.rows_of(s.evaluation.problems or _MANY) // shards),
    )


@functools.cache
def _pairs(columns: int) -> int:
    """Scores of a head in a row: each block of queries with the keys that any of them sees."""
    return sum((last - first) * last for first, last in attention.blocks(columns))


def parameters(model: ModelConfig) -> int:
    """Number of weights of a model, without norms and biases."""
    m = model
    attention = 2 * (m.heads + m.kv_heads) * m.head_width * m.width
    return m.layers * (attention + 3 * m.width * m.mlp_width) + _embeddings(m)


def _embeddings(model: ModelConfig) -> int:
    return model.vocab_size * model.width * (1 if model.tied else 2)


def flops(shapes: Shapes) -> float:
    """FLOPs of an update over all devices if every row is full; only remat recomputes anything.

    Counted are the policy's forward and backward passes and the reference's forward pass, and with
    remat=full each layer's forward pass again. The head is applied to written tokens only, and its
    gradient is taken in the forward pass.
    """
    e, rollout = shapes.experiment, shapes.experiment.settings.rollout
    written = rollout.rows * rollout.attempts * rollout.max_attempt_tokens
    layers, head = bench_flops.forward(e.model, np.full(rollout.rows, float(e.columns)), written)
    again = e.settings.memory.remat == "full"
    return (4 + again) * layers + 4 * head
