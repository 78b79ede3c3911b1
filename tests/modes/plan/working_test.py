"""The arithmetic against XLA: the same programs compiled for a CPU, and their memory_analysis.

By default one small program; `slow` compiles all that docs/operations.md has a table of, and more.
"""

import dataclasses
from typing import Any

import jax
import pytest

from score_jax import jsonfiles
from score_jax.bench.workloads import (
    GEMMA2_2B,
    INSTRUCTION_TOKENS,
    PROMPT_TOKENS,
    SMOLLM2_135M,
)
from score_jax.config.settings import LoraSettings, MemorySettings, MeshSettings
from score_jax.experiment import GREEDY
from score_jax.learner.loss import token_logprobs
from score_jax.modes.plan import compiled, estimate, shapes, working
from score_jax.modes.plan.estimate import EVALUATION, ROLLOUT, STAYS, UPDATE
from score_jax.modes.plan.working import Numbers
from score_jax.rollout import layout, programs
from score_jax.runtime import sharding
from tests.modes.plan import flagships

MODELS = {
    "tiny": (512, 64, 3, 4, 2, 192, False),
    "medium": (8192, 256, 6, 8, 4, 768, False),
    "wide": (49_152, 576, 6, 9, 3, 1536, True),
}
TOO_LOW, TOO_HIGH = -0.05, 0.15


def planned(folder, model: str = "medium", **changed: Any) -> shapes.Shapes:
    """A config of a model with random weights, on one CPU."""
    vocabulary, width, layers, heads, kv_heads, mlp, tied = MODELS[model]
    described = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
    }
    jsonfiles.write(folder / "config.json", described)
    s = flagships.settings("gsm8k_smollm2_135m")
    rows = {"problems_per_step": 8, "samples_per_problem": 4, "slots": 0, "shrink": 0}
    lengths = {"max_prompt_tokens": 64, "max_attempt_tokens": 96}
    rollout = {k: v for k, v in changed.items() if k in rows or k in lengths}
    memory = {k: v for k, v in changed.items() if k in ("micro_batches", "remat")}
    s = dataclasses.replace(
        s,
        model=dataclasses.replace(
            s.model,
            source=str(folder),
            dtype=changed.get("dtype", "float32"),
            lora=LoraSettings(rank=changed.get("rank", 0)),
        ),
        rollout=dataclasses.replace(s.rollout, **(rows | lengths | rollout)),
        memory=MemorySettings(**({"micro_batches": 4, "remat": "full", "widths": 1} | memory)),
        evaluation=dataclasses.replace(s.evaluation, batch=16, problems=64),
        mesh=MeshSettings(data=1, fsdp=1, tensor=1),
    )
    return shapes.of_config(s, sharding.make_mesh(1, 1, 1, jax.devices()[:1]))


def by_xla(what: shapes.Shapes, programs: tuple[str, ...]) -> dict[str, int]:
    """Bytes of the compiled programs: arguments, results of their own, temporaries."""
    found = {}
    for program in compiled.programs(what):
        if program.name in programs:
            one = compiled.compile_one(program)
            given = _arguments(what)[program.name]
            found[program.name] = given + one.weights + one.temporaries + one.others
    if EVALUATION in programs:
        found[EVALUATION] = _bytes(_decode(what))
    return found


def _arguments(what: shapes.Shapes) -> dict[str, int]:
    """Bytes that stay between steps, of those that the program reads."""
    stays = {term.name: term.bytes for term in estimate.terms(what) if term.when == STAYS}
    base = stays["reference"] if what.experiment.base else 0
    return {
        ROLLOUT: stays["weights"] + base,
        UPDATE: stays["weights"] + stays["optimizer"] + base,
        EVALUATION: 0,
    }


def _bytes(lowered: Any) -> int:
    memory = lowered.compile().memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + results


def _decode(what: shapes.Shapes):
    """The program that an evaluation decodes with; its arguments are weights laid out and slots."""
    e = what.experiment
    s, mesh = e.settings, e.mesh
    slots = e.evaluation_rows(s.evaluation.batch)
    settings = dataclasses.replace(e.episode_settings(policy=GREEDY, samples=1), slots=slots)
    weights = e.weights(what.state.params)
    laid_out = layout.laid_out(weights, settings=settings, mesh=mesh, call=compiled.Walk())
    columns = settings.row_tokens(s.rollout.max_prompt_tokens)
    sizes = {"key_words": (2,), "columns": columns, "asked": (), "settings": settings, "mesh": mesh}
    held = programs.empty.lower(**sizes).out_info
    how, arguments = programs.decoding(settings, slots, fewer=0, shared=False)
    return programs.decode.lower(laid_out, held, (), arguments, settings=how, mesh=mesh)


def by_arithmetic(what: shapes.Shapes) -> dict[str, float]:
    """The same bytes: what a program takes as arguments, and its terms."""
    terms = estimate.terms(what)
    return {
        program: given + sum(term.bytes for term in terms if term.when == program)
        for program, given in _arguments(what).items()
    }


def compare(what: shapes.Shapes, programs: tuple[str, ...]) -> dict[str, float]:
    """By how much the arithmetic is above XLA, as a share."""
    ours = by_arithmetic(what)
    return {name: ours[name] / size - 1 for name, size in by_xla(what, programs).items()}


def check(found: dict[str, float]) -> None:
    wrong = {name: f"{x:+.1%}" for name, x in found.items() if not TOO_LOW <= x <= TOO_HIGH}
    assert not wrong, f"{wrong}, of {found}: correct the counts in modes/plan/working.py"


@pytest.mark.slow
def test_an_update_of_whole_weights_is_estimated_as_xla_has_it(tmp_path):
    check(compare(planned(tmp_path, "tiny"), (UPDATE,)))


# BENCHMARKS.md: updates on one H200 in bfloat16, as XLA had them.
PEAKS = {
    "real": (SMOLLM2_135M, 4, 1, 64, "products", 3.0e9),
    "large": (GEMMA2_2B, 64, 8, 256, "full", 68.7e9),
}


@pytest.mark.parametrize("name", PEAKS)
def test_the_measured_peaks_of_an_h200_are_near(name):
    m, rows, parts, attempt, remat, measured = PEAKS[name]
    weights = 4 * estimate.parameters(m)
    columns = PROMPT_TOKENS + INSTRUCTION_TOKENS + 2 * attempt
    found = working.update(
        Numbers(
            layers=m.layers,
            width=m.width,
            heads=m.heads,
            kv_heads=m.kv_heads,
            head_width=m.head_width,
            mlp=m.mlp_width,
            vocabulary=m.vocab_size,
            tied=m.tied,
            bytes=2,
            converts=False,
            by_head=False,
            second_head=True,
            prompt_copies=2,
            shards=1,
            trained=weights,
            rank=0,
            rows=rows // parts,
            columns=columns,
            written=2 * attempt,
            parts=parts,
            remat=remat,
            chunk=token_logprobs.chunk_tokens(0, m),
            pairs=estimate._pairs(columns),
            narrower=0.0,
            problems=rows,
            slots=rows,
            queued=False,
            prompt=PROMPT_TOKENS,
            fed=INSTRUCTION_TOKENS,
            turn_rows=1,
            test_slots=rows,
            test_columns=columns,
            shaded_rows=1,
        )
    )
    total = 3 * weights + sum(found.values())  # with Adam's moments
    assert TOO_LOW <= total / measured - 1 <= TOO_HIGH


CASES: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16"},
    {"remat": "none"},
    {"remat": "none", "dtype": "bfloat16"},
    {"remat": "products"},
    {"rank": 8},
    {"rank": 8, "dtype": "bfloat16"},
    {"micro_batches": 1},
    {"slots": 8},
    {"max_prompt_tokens": 256, "max_attempt_tokens": 256, "problems_per_step": 4},
    {"model": "tiny"},
    {"model": "tiny", "dtype": "bfloat16", "rank": 4, "remat": "none", "micro_batches": 1},
    {"model": "tiny", "micro_batches": 2, "remat": "none"},
    {"model": "wide", "micro_batches": 8},
    {"model": "wide", "dtype": "bfloat16"},
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(f"{k}={case[k]}" for k in case))
def test_programs_are_estimated_as_xla_has_them(case, tmp_path):
    found = compare(planned(tmp_path, **case), (ROLLOUT, UPDATE, EVALUATION))
    print(case, {name: f"{share:+.1%}" for name, share in found.items()})
    check(found)
