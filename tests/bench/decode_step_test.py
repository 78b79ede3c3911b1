"""What a decode step reads and writes, by XLA's count, over what it must: weights and cache once.

The step is the benchmark's own, compiled as it runs (so without quick_compile). Where a bound
breaks, list the program's instructions by their bytes and look for a copy, or a pass over scores or
logits, that is new; a newer XLA may fuse otherwise.
"""

import importlib.util

import jax
import pytest

from score_jax.bench import rollout, workloads


def test_on_a_cpu_it_is_less_than_thirteen_tenths():
    assert (
        1.0 < rollout.decode_step(workloads.named("small", shapes=True))["bytes_over_least"] < 1.3
    )


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="TPU's compiler (libtpu) is not installed: launch/test.sh installs it on Linux",
)
@pytest.mark.parametrize(
    "workload, dtype",
    [("small", "float32"), pytest.param("real", "bfloat16", marks=pytest.mark.slow)],
)
def test_on_a_tpu_that_multiplies_bfloat16_it_is_less_than_thirteen_tenths(workload, dtype):
    work = workloads.named(workload, dtype=dtype, shapes=True)
    with jax.default_matmul_precision("default"):
        found = rollout.compile_for(work, "v5e:2x2")
    assert 1.0 < found["bytes_over_least"] < 1.3
