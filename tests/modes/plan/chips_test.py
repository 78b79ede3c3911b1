import pytest

from score_jax.modes.plan import chips
from score_jax.problem import InputError


@pytest.mark.parametrize(
    ("topology", "count", "rented_as"),
    [
        ("v5e:4x4", 16, "v5e-16"),
        ("v5p:2x2x4", 16, "v5p-32"),  # the cloud counts cores of v5p
        ("v6e:8x8", 64, "v6e-64"),
    ],
)
def test_a_topology_names_chips_and_how_many(topology, count, rented_as):
    where = chips.slice_of(topology)
    assert where.chips == count and where.rented_as == rented_as
    assert where.chip is chips.CHIPS[topology[:3]]


@pytest.mark.parametrize(
    ("topology", "said"),
    [("v5e", "such as v5e:4x4"), ("v5e-16", "not a known TPU"), ("v5f:4x4", "mean 'v5")],
)
def test_other_names_are_refused_with_an_example(topology, said):
    with pytest.raises(InputError, match=said):
        chips.slice_of(topology)
