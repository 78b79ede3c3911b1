"""The decoding layout, made weight by weight; and how much memory that takes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax.config.settings import LoraSettings
from score_jax.learner import lora
from score_jax.model import transformer, weights
from score_jax.rollout import layout
from score_jax.rollout.layout import laid_out
from tests import fakes
from tests.rollout.episode_test import PLAIN

pytestmark = pytest.mark.usefixtures("quick_compile")
MODEL = fakes.model(layers=6, tied=True)
LORA = LoraSettings(rank=2, alpha=4.0)


def params():
    return fakes.params(MODEL)


def adapted():
    base = params()
    adapters = lora.init(jax.random.key(1), MODEL, LORA)
    adapters = jax.tree.map(lambda x: x + 0.01, adapters)  # `up` begins as zero
    return lora.attach(base, adapters, LORA)


def settings(**changes):
    return dataclasses.replace(PLAIN, model=MODEL, **changes)


def nbytes(tree) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("make", [params, adapted])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("frees", [False, True])
def test_it_is_that_of_the_transformer_in_every_bit(make, dtype, frees):
    source, s = make(), settings(dtype=dtype, untied=True)
    wanted = transformer.for_decoding(MODEL, source, dtype, untied=True)
    found = laid_out(source, settings=s, frees=frees)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert all(x.dtype == dtype for x in jax.tree.leaves(found))
    freed = [x.is_deleted() for x in jax.tree.leaves(source["layers"])]
    assert all(freed) if frees else not any(freed)
    assert laid_out(found, settings=s) is found


def test_the_next_rollout_traces_nothing():
    events: list[str] = []

    def note(event, _sec, **_):
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    laid_out(params(), settings=settings())
    weights = params()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        laid_out(weights, settings=settings())
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
    assert events == []


def test_only_one_weight_is_in_memory_twice(monkeypatch):
    held = fakes.Held()
    source, most = params(), 0
    sizes = [nbytes(x) for x in source["layers"].values()]
    whole, head = nbytes(source), source["embedding"].nbytes
    program = layout._layer

    def counted(*args, **how):
        nonlocal most
        made = program(*args, **how)
        most = max(most, held.since())
        return made

    monkeypatch.setattr(layout, "_layer", counted)
    found = laid_out(source, settings=settings(untied=True), frees=True)
    assert whole < most <= whole + max(sizes)
    assert held.since() == nbytes(found) == whole + head


def test_whole_rows_go_through_layers_that_are_apart_as_through_stacked_ones():
    for model in (MODEL, fakes.model_of_family("gemma3_text"), fakes.model_of_family("smollm3")):
        source = fakes.params(model)
        tokens_BT = np.random.default_rng(0).integers(0, model.vocab_size, (2, 9))
        apart = transformer.for_decoding(model, source, "float32")
        np.testing.assert_allclose(
            transformer.hidden(model, apart, tokens_BT),
            transformer.hidden(model, source, tokens_BT),
            atol=2e-5,
        )


_EVALUATION = """
import json, sys
from score_jax.runtime import heap
heap.keep_pages()  # as main.py does
import jax, numpy as np
from score_jax.model import weights
from score_jax.model.cache import empty
from score_jax.rl.policy import Policy
from score_jax.rollout.layout import laid_out
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.stream import Stream
from score_jax.structs import PromptBatch

model, params = weights.load(sys.argv[1])
settings = EpisodeSettings(
    model=model, policy=Policy(temperature=0.0), attempts=2, samples=1, max_attempt_tokens=4,
    instruction=(5, 6), turn_end=(7,), end_ids=(8,), pad_id=0, untied=True,
)
size = sum(x.nbytes for x in jax.tree.leaves(params))
params = laid_out(params, settings=settings, frees=True)
prompts = PromptBatch(np.ones((4, 32), np.int32), np.full(4, 32, np.int32), np.arange(4), ())
done = list(Stream(params, prompts, jax.random.key(0), settings=settings, rows=4))
cache = jax.eval_shape(lambda: empty(model, 4, settings.row_tokens(32), "float32", "by_head"))
# ru_maxrss would count what the process that started this one held.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if "VmHWM" in line)
held = sum(x.size * 4 for x in jax.tree.leaves(cache))
print(json.dumps({"weights": size, "cache": held, "peak": peak}))
"""


@pytest.mark.slow  # a minute, and 3 GB of disk and memory
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_decoding_with_half_a_billion_weights_stays_below_one_and_a_half_times_their_size(tmp_path):
    half_a_billion = fakes.model_of_family(
        "qwen2", vocab_size=151_936, layers=24, width=896, heads=14, kv_heads=2, head_width=64,
        mlp_width=4864, tied=True,
    )  # fmt: skip
    shapes = jax.eval_shape(lambda: transformer.init(half_a_billion, jax.random.key(0)))
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    weights.save(tmp_path, half_a_billion, zeros, dtype="bfloat16")
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", _EVALUATION, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["weights"] > 1.9e9
    assert found["peak"] <= 1.5 * found["weights"] + found["cache"] + 0.7e9, found
