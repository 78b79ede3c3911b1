"""The benchmarks' inputs: as the benchmark page defines them, and the same for every engine."""

import jax
import numpy as np
import pytest

from score_jax.bench import workloads
from score_jax.problem import InputError

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_the_named_workloads_have_the_sizes_they_say():
    small = workloads.named("w_small")
    assert small.name == "small"
    assert small.prompts.tokens.shape == (64, 64)
    assert small.settings.row_tokens(64) == 224
    assert np.all(small.limit_QGA == 64) and small.limit_QGA.shape == (64, 1, 2)
    params = sum(x.size for x in jax.tree.leaves(small.params))
    assert (
        params == 6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768 + 512) + 2 * 4096 * 256 + 256
    )


def test_skewed_attempts_are_short_in_the_mean_and_long_in_the_tail():
    limit = workloads.heavy_tailed((32, 8, 2), 128, seed=0)
    assert abs(limit.mean() - 32) < 0.5
    assert np.median(limit) < 24
    assert limit.max() == 128 and limit.min() >= 1
    np.testing.assert_array_equal(limit, workloads.heavy_tailed((32, 8, 2), 128, seed=0))


def test_an_unknown_workload_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'skewed'"):
        workloads.named("w_skewd")
