"""Terms against arithmetic by hand, and that the flagships fit their slices."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from score_jax.config.settings import LoraSettings, Settings
from score_jax.learner import lora
from score_jax.learner.loss import token_logprobs
from score_jax.model import transformer
from score_jax.modes.plan import chips, estimate, shapes, working
from score_jax.modes.plan.estimate import EVALUATION, RESTORE, STAYS, UPDATE
from score_jax.runtime import sharding
from tests.modes.plan import flagships


def planned(topology: str, settings: Settings):
    """A config's terms by name, and what they were planned of."""
    mesh = settings.mesh
    count = chips.slice_of(topology).chips
    sizes = sharding.axis_sizes(mesh.data, mesh.fsdp, mesh.tensor, count)
    made = shapes.of_config(
        settings, jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))
    )
    return estimate.terms(made), made


def settings(**changes: Any) -> Settings:
    """The experiment with Gemma 2 2B, whose numbers are used below, with other settings."""
    made = flagships.settings("math_gemma2_2b")
    groups = {
        name: dataclasses.replace(getattr(made, name), **fields) for name, fields in changes.items()
    }
    return dataclasses.replace(made, **groups)


# Gemma 2 2B: 26 layers of width 2304, 8 heads and 4 key/value heads of 256, MLP 9216, vocabulary
# 256,000, tied.
LAYER = 2304 * 256 * (8 + 4 + 4) + 8 * 256 * 2304 + 3 * 2304 * 9216
NORMS = 26 * 4 * 2304 + 2304
MATRICES = 26 * LAYER + 256_000 * 2304


def test_terms_of_a_known_shape_are_those_of_arithmetic_by_hand():
    mesh = {"data": 2, "fsdp": 4, "tensor": 2}
    rollout = {"slots": 3, "max_prompt_tokens": 100, "max_attempt_tokens": 200}
    made = settings(
        mesh=mesh, rollout=rollout, memory={"micro_batches": 4, "remat": "full", "chunk": 64}
    )
    terms, what = planned("v5e:4x4", made)
    found = {term.name: term.bytes for term in terms if term.when != EVALUATION}
    tests = {term.name: term.bytes for term in terms if term.when == EVALUATION}
    between = what.experiment.columns - 500  # instruction and turn
    columns = 100 + 2 * 200 + between
    # Matrices are split over fsdp x tensor, norms are on all.
    split = MATRICES // 8 + NORMS
    assert found["weights"] == found["reference"] == 4 * split
    assert found["optimizer"] == 2 * 4 * split + 4  # and a count
    # Of a part, and their sum; and the head's, which is added to the embedding's.
    assert found["gradients"] == 2 * found["weights"] + 256_000 * 2304 * 4 // 8
    assert found["weights in model.dtype"] == found["weights"]  # and their gradients, of 2 bytes
    assert found["decode weights"] == 2 * MATRICES // 2
    token = 2 * 26 * 2 * 256 * 2  # keys and values of half the heads, bfloat16
    assert found["cache"] == 3 * columns * token
    assert tests["cache"] == 3 * columns * token  # no more rows than slots, of 64
    # Before the first token: 128 problems on 8 parts, as they were fed, by slot and turned.
    assert found["prompts' cache"] == 3 * 16 * 100 * token
    assert "prompts' attention" not in found  # of one layer, while there is no other cache
    # 512 rows in 4 parts on 8: 16 rows.
    tokens = 16 * columns
    narrower = -(-columns // 32) * 16  # half, which a part may have too
    assert found["layers' inputs"] == 26 * 16 * (columns + narrower) * 2304 * 2
    # Four blocks of queries; weights in float32 and bfloat16.
    size = -(-columns // 64) * 16
    ends = [min(columns, size * n) for n in (1, 2, 3, 4)]
    pairs = sum((end - size * n) * end for n, end in enumerate(ends))
    # And half of them once more, as gradients of a block.
    assert found["attention scores"] == 16 * 4 * pairs * (4 + 2 + 2)
    assert found["values of a layer"] == tokens * 2 * (6 * 4608 + 6 * 2304 + 2 * (4 + 2) * 256)
    # Of two layers; the embedding and its gradient.
    assert found["gathered weights"] == 2 * (LAYER + 256_000 * 2304) // 2 * 2
    assert "logits" not in found  # less than a layer's values: 64 tokens at a time
    assert "float32 copies" not in found


def test_adapters_need_no_optimizer_of_the_weights_and_no_reference():
    adapted = settings(model={"lora": LoraSettings(rank=16)})
    found = {term.name: term.bytes for term in planned("v5e:4x4", adapted)[0]}
    whole = {term.name: term.bytes for term in planned("v5e:4x4", settings())[0]}
    assert found["reference"] == whole["reference"] / 2  # the frozen weights, in bfloat16
    assert found["optimizer"] < whole["optimizer"] / 10
    assert found["gradients"] < whole["gradients"] / 10
    assert "weights in model.dtype" not in found


def test_factored_moments_are_small_and_lie_on_all_chips():
    factored = settings(optimizer={"name": "adafactor"})
    found = {term.name: term.bytes for term in planned("v5e:4x4", factored)[0]}
    assert 0 < found["optimizer"] < found["weights"] / 10


def test_logits_are_those_of_the_chunk_that_an_update_chooses():
    lengths = {"max_prompt_tokens": 100, "max_attempt_tokens": 200}
    memory = {"chunk": 0, "micro_batches": 32}
    mesh = {"fsdp": 16, "tensor": 1}
    terms, what = planned("v5e:4x4", settings(memory=memory, rollout=lengths, mesh=mesh))
    chosen = token_logprobs.chunk_tokens(0, what.experiment.model)
    assert chosen == 256  # a large vocabulary, in a model wider than 512
    found = {term.name: term.bytes for term in terms if term.when == UPDATE}
    hidden = (what.experiment.columns + 3 * 400) * 2304 * 2  # of one row; written are 400 columns
    assert found["logits"] == 5 * 256 * 256_000 * 4 + hidden
    trained = {term.name: term.bytes for term in terms if term.when == STAYS}["weights"]
    head = 256_000 * 2304 * 4 // 16
    assert found["gradients"] == trained + 2 * head  # summed so far; of this chunk and before it
    narrow = dataclasses.replace(what.experiment.model, width=128)
    assert token_logprobs.chunk_tokens(0, narrow) == 64  # half its width
    assert token_logprobs.chunk_tokens(0, dataclasses.replace(narrow, vocab_size=2**14)) == 256
    assert token_logprobs.chunk_tokens(7, narrow) == 7


def test_flops_are_two_for_each_weight_and_token_and_pass():
    made = settings(rollout={"max_prompt_tokens": 100, "max_attempt_tokens": 200})
    _, what = planned("v5e:4x4", made)
    rows, columns = 512, what.experiment.columns
    head = 2 * 256_000 * 2304 * rows * 2 * 200  # written tokens only
    seen = columns * (columns + 1) / 2  # no row is longer than a window
    forward = 2 * 26 * LAYER * rows * columns + 26 * 4 * 8 * 256 * rows * seen
    # Forward, backward (2), the reference's forward; the layers again, which the head is not.
    assert estimate.flops(what) == 5 * forward + 4 * head


def test_the_largest_terms_of_what_does_not_fit_each_say_what_to_change():
    whole = settings(rollout={"slots": 0})
    terms, _ = planned("v5e:4x4", whole)
    assert estimate.needed(terms)["rollout"] > chips.CHIPS["v5e"].usable_bytes
    largest = estimate.largest(terms, "rollout")
    assert [term.name for term in largest] == ["cache", "prompts' cache", "decode weights"]
    assert "rollout.slots" in largest[0].advice
    assert all(term.advice for term in terms)


@pytest.mark.parametrize("name", flagships.PLANNED)
def test_every_flagship_fits_by_arithmetic_with_a_tenth_to_spare(name):
    topology = flagships.PLANNED[name]
    terms, _ = planned(topology, flagships.settings(name))
    usable = chips.slice_of(topology).chip.usable_bytes
    assert max(estimate.needed(terms).values()) <= 0.9 * usable


def test_a_run_that_resumes_holds_what_stays_and_nothing_twice():
    terms, _ = planned("v5e:4x4", settings())
    stays = sum(term.bytes for term in terms if term.when == STAYS)
    assert estimate.needed(terms)[RESTORE] == stays


def test_a_card_without_bfloat16_holds_float32_copies():
    s = flagships.settings("gsm8k_qwen3_06b")
    mesh = jax.sharding.AbstractMesh((1, 1, 1), ("data", "fsdp", "tensor"))
    found = {}
    for converts in (False, True):
        made = shapes.of_config(s, mesh, platform="gpu", converts=converts)
        found[converts] = estimate.needed(estimate.terms(made))
    for program in ("rollout", "update", "evaluation"):
        assert found[True][program] > found[False][program]
    assert found[True][RESTORE] == found[False][RESTORE]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("remat", ["none", "products", "full"])
def test_what_a_layer_keeps_is_what_jax_keeps(remat, rank, dtype):
    adapted = LoraSettings(rank=rank)
    s = settings(
        model={"lora": adapted, "dtype": dtype, "source": "HuggingFaceTB/SmolLM2-135M"},
        memory={"remat": remat, "micro_batches": 128, "widths": 1},
        rollout={"max_prompt_tokens": 100, "max_attempt_tokens": 200},
        mesh={"data": 1, "fsdp": 1, "tensor": 1},
    )
    mesh = jax.sharding.AbstractMesh((1, 1, 1), ("data", "fsdp", "tensor"))
    what = shapes.of_config(s, mesh)
    n, e = estimate.numbers(what), what.experiment
    bare = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
    like = bare(what.state.params), bare(e.base)

    def residuals(params, base, tokens):
        def hidden(params):
            params = lora.weights(params, base, adapted)
            params = jax.tree.map(lambda x: x.astype(dtype), params)
            return transformer.hidden(e.model, params, tokens, remat=remat)

        return jax.vjp(hidden, params)[1]

    tokens = jax.ShapeDtypeStruct((n.rows, n.columns), jnp.int32)
    kept = jax.eval_shape(residuals, *like, tokens)
    found = sum(
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves(kept)
        if x.shape[0] == n.layers and x.shape[1] in (n.rows, n.rows * n.columns)  # not weights
    )
    assert working._kept(n) * n.layers == pytest.approx(found, rel=0.06)


# GiB of rollout, update and code on each chip, by the TPU's compiler: docstrings of the configs.
COMPILED = {
    "math_gemma2_2b": (10.46, 10.90, 0.19),
    "math_gemma2_9b": (47.58, 25.41, 1.17),
    "math_gemma2_27b": (52.92, 34.58, 1.25),
    "math_llama31_8b": (42.22, 22.10, 0.87),
    "mbpp_gemma2_9b": (42.70, 24.29, 0.97),
}


@pytest.mark.parametrize("name", flagships.PLANNED)
def test_the_plans_that_were_compiled_are_near(name):
    terms, _ = planned(flagships.PLANNED[name], flagships.settings(name))
    rollout, update, code = COMPILED[name]
    needed = estimate.needed(terms)
    for program, size in (("rollout", rollout - code), ("update", update - code)):
        assert -0.1 <= needed[program] / chips.GIB / size - 1 <= 0.08, program
