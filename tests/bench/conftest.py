"""What tests of the benchmarks share."""

import dataclasses

import pytest

from score_jax.bench import workloads
from tests import fakes


@pytest.fixture
def skewed(monkeypatch):
    """The skewed workload with a tiny model and few samples."""
    shape = dataclasses.replace(
        workloads.SHAPES["skewed"], model=fakes.model(max_positions=512), problems=2, slots=8
    )
    monkeypatch.setitem(workloads.SHAPES, "skewed", shape)
    return workloads.named("skewed")
