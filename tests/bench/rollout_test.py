"""The rollout benchmark on a tiny model: what it reports, and what it is compared with."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from score_jax.bench import __main__ as bench
from score_jax.bench import rollout, timing, workloads
from score_jax.model import transformer
from score_jax.problem import InputError
from score_jax.rollout.slots import Work
from score_jax.runtime.peaks import Peak

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.slow
def test_refill_beats_lock_step_where_lengths_differ(skewed):
    found = rollout.measure(skewed, reps=1)
    assert found["generated_tokens"] == skewed.limit_QGA.sum()
    assert found["fed_tokens"] == 2 * 64 + 16 * 32  # Q * P + Q * G * I
    assert found["lock_step"]["live_share"] < 0.5 < found["live_share"]
    assert found["lock_step"]["decode_steps"] > found["decode_steps"]
    low, high = found["spread"]
    assert low <= found["tokens_per_sec"] <= high
    assert found["bytes_over_least"] > 0.9 and found["flops_over_least"] > 0.9
    assert found["bandwidth_share"] is None  # a CPU


def test_bandwidth_is_of_weights_once_a_step_and_of_cache_once_a_slot(skewed, monkeypatch):
    monkeypatch.setattr(rollout.peaks, "here", lambda: Peak(flops=1.0, bytes_per_sec=1e9))
    monkeypatch.setattr(rollout.jax, "device_count", lambda: 2)
    nothing = np.array([0])
    counted = Work(np.array([10, 20]), np.array([40, 70]), nothing, nothing)
    found = rollout._bandwidth(skewed, counted, seconds=4.0)
    m = skewed.settings.model
    params = jax.eval_shape(lambda: transformer.init(m, jax.random.key(0)))
    weights = sum(x.size for x in jax.tree.leaves(params)) - m.vocab_size * m.width  # looked up
    columns = skewed.settings.row_tokens(skewed.prompts.tokens.shape[1])
    slot = 2 * m.layers * m.kv_heads * m.head_width * columns
    assert found["least_bytes_per_sec"] == (30 * weights + 110 * slot) * 4 / 4.0
    assert found["bandwidth_share"] == found["least_bytes_per_sec"] / 2e9


def test_the_last_line_is_one_json_object_with_the_contract_s_keys(skewed, capsys):
    del skewed
    for what in ("rollout", "update"):
        bench.main([what, "--workload=skewed", "--reps=1"])
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert {"tokens_per_sec", "spread", "compile_sec", "peak_memory_bytes"} <= found.keys()
        assert {"workload", "versions", "device"} <= found.keys()


@pytest.fixture
def as_it_runs(quick_compile):
    """Programs compiled with all of XLA's optimisations, in every module."""
    del quick_compile
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


# Where one of these bounds breaks, list the step's instructions by their bytes and look for a copy,
# or a pass over scores or logits, that is new. A newer XLA may fuse otherwise.


@pytest.mark.skipif(
    tuple(map(int, jax.__version__.split(".")[:3])) < (0, 10, 2),
    reason="the XLA of jax 0.10.0 fuses less: 1.44 times the least",
)
@pytest.mark.usefixtures("as_it_runs")
def test_a_decode_step_on_a_cpu_moves_less_than_thirteen_tenths_of_the_least():
    found = rollout.decode_step(workloads.named("small", shapes=True))
    assert 1.0 < found["bytes_over_least"] < 1.3


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="TPU's compiler (libtpu) is not installed: launch/test.sh installs it on Linux",
)
@pytest.mark.parametrize(
    "workload, dtype",
    [("small", "float32"), pytest.param("real", "bfloat16", marks=pytest.mark.slow)],
)
@pytest.mark.usefixtures("as_it_runs")
def test_so_does_one_for_a_tpu_that_rounds_factors_to_bfloat16(workload, dtype):
    work = workloads.named(workload, dtype=dtype, shapes=True)
    with jax.default_matmul_precision("default"):
        found = rollout.compile_for(work, "v5e:2x2")
    assert 1.0 < found["bytes_over_least"] < 1.3


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["rolout"], "Did you mean 'rollout'"),
        (["rollout", "--reps=0"], "measures nothing"),
        (["rollout", "--seed=1"], "unexpected arguments: --seed=1"),
        (["rollout", "--config=nowhere.py"], "there is no config file nowhere.py"),
    ],
)
def test_bad_arguments_are_refused(arguments, wanted):
    with pytest.raises(InputError, match=wanted):
        bench.main(arguments)


def test_rates_are_medians_with_slowest_and_fastest():
    assert timing.rate(10, [1.0, 2.0, 5.0]) == {"tokens_per_sec": 5.0, "spread": [2.0, 10.0]}
