import pytest

from score_jax.modes.plan import chips
from score_jax.problem import InputError


@pytest.mark.parametrize(
    ("name", "topology", "count", "rented_as"),
    [
        ("v5e:4x4", "v5e:4x4", 16, "v5e-16"),
        ("v5p:2x2x4", "v5p:2x2x4", 16, "v5p-32"),  # the cloud counts cores of v5p
        ("v6e:8x8", "v6e:8x8", 64, "v6e-64"),
        ("v5e-16", "v5e:4x4", 16, "v5e-16"),
        ("v5litepod-16", "v5e:4x4", 16, "v5e-16"),
        ("v6e-8", "v6e:2x4", 8, "v6e-8"),
        ("v5p-128", "v5p:4x4x4", 64, "v5p-128"),
    ],
)
def test_a_slice_is_named_by_its_grid_or_as_it_is_rented(name, topology, count, rented_as):
    for where in (chips.slice_of(name), chips.machine_of(name, "")):
        assert (where.topology, where.chips, where.rented_as) == (topology, count, rented_as)
        assert where.chip is chips.CHIPS[topology[:3]]


@pytest.mark.parametrize(
    ("name", "count", "rented_as"),
    [("2xv5e-16", 32, "2xv5e-16"), ("4xv5p:2x2x4", 64, "4xv5p-32"), ("1xv6e-8", 8, "v6e-8")],
)
def test_several_slices_are_named_by_their_number(name, count, rented_as):
    for where in (chips.slice_of(name), chips.machine_of(name, "")):
        assert (where.chips, where.slices, where.rented_as) == (count, int(name[0]), rented_as)


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("v5e", "such as v5e-16 or v5e:4x4"),
        ("a100:1", "--device=a100-80gb:8"),
        ("v5f:4x4", "mean 'v5"),
        ("v5f-16", "mean 'v5"),
        ("v5e-12", "no v5e slice of that size. Known: v5e-1, v5e-4,"),
    ],
)
def test_other_names_are_refused_with_an_example(topology, said):
    with pytest.raises(InputError, match=said):
        chips.slice_of(topology)


def test_a_gpu_is_named_with_how_many_there_are(monkeypatch):
    monkeypatch.delenv(chips.TAKEN, raising=False)
    where = chips.machine_of("A100-80GB:8", "")
    assert (where.chips, where.rented_as, where.topology) == (8, "a100-80gb:8", "")
    assert where.chip.usable_bytes == 0.75 * 80 * chips.GIB  # what jax takes unless it is told
    monkeypatch.setenv(chips.TAKEN, "0.9")
    assert chips.machine_of("a100-80gb", "").chip.usable_bytes == 0.9 * 80 * chips.GIB
    assert chips.machine_of("a100:1", "").rented_as == "a100-40gb"


@pytest.mark.parametrize(
    ("memory", "size"),
    [("24GiB", 24 * 2**30), ("24gb", 24e9), ("24", 24 * 2**30), ("512MiB", 2**29)],
)
def test_memory_alone_is_a_device_whose_speed_is_not_known(memory, size):
    where = chips.machine_of("", memory)
    assert (where.chips, where.chip.usable_bytes, where.chip.peak) == (1, size, None)


def test_memory_replaces_that_of_a_device_and_counts_too():
    assert chips.machine_of("t4", "12GiB").chip.usable_bytes == 12 * 2**30
    assert chips.machine_of("", "24GiB:4").chips == 4


@pytest.mark.parametrize(
    ("device", "memory", "said"),
    [
        ("a100-80g", "", "Did you mean 'a100-80gb'"),
        ("a100-80gb:x", "", "after the colon stands how many"),
        ("", "much", "such as 24GiB"),
        ("", "0GiB", "such as 24GiB"),
    ],
)
def test_other_devices_are_refused_with_an_example(device, memory, said):
    with pytest.raises(InputError, match=said):
        chips.machine_of(device, memory)


def test_the_card_that_has_no_bfloat16_is_known():
    assert not chips.machine_of("t4", "").chip.peak.has_bfloat16
    assert chips.machine_of("l4", "").chip.peak.has_bfloat16
