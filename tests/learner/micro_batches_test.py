"""Micro-batches: which rows a part has, how wide it is, and that results are in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config.settings import MemorySettings
from score_jax.learner import micro_batches
from score_jax.learner.micro_batches import Split
from score_jax.problem import InputError
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

COLUMNS = 64
LENGTH_B = np.array([64, 3, 40, 16, 17, 1, 33, 15], np.int32)
VALUE_BT = np.where(np.arange(COLUMNS) < LENGTH_B[:, None], 1.0, 0.0).astype(np.float32)


def accumulated(split: Split, seen: list | None = None):
    """Sum and doubled values of VALUE_BT, and the shapes that its parts had."""

    def fn(rows):
        if seen is not None:
            seen.append(rows["value"].shape)
        return {"sum": jnp.sum(rows["value"])}, rows["value"] * 2 + 1

    rows = {"value": jnp.asarray(VALUE_BT), "short": jnp.ones((8, 5))}
    return micro_batches.accumulate(fn, rows, jnp.asarray(LENGTH_B), split)


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("widths", [1, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_sums_and_rows_are_those_of_the_whole_batch_in_its_order(count, widths, shards):
    sums, found_BT = accumulated(Split(count, widths, shards))
    assert sums["sum"] == VALUE_BT.sum()
    inside_BT = VALUE_BT > 0  # a part may be narrower than the padding after a row
    np.testing.assert_array_equal(np.asarray(found_BT)[inside_BT], 3.0)
    assert np.all(np.isin(np.asarray(found_BT)[~inside_BT], [0.0, 1.0]))


def test_a_part_takes_the_narrowest_width_that_its_rows_fit_in():
    split = Split(parts=4, widths=4)
    assert split.columns(COLUMNS) == (16, 32, 48, 64)

    def fn(rows):
        return jnp.zeros(4).at[rows.shape[1] // 16 - 1].add(1), rows

    used, _ = micro_batches.accumulate(fn, jnp.asarray(VALUE_BT), jnp.asarray(LENGTH_B), split)
    # Sorted: 1 3 | 15 16 | 17 33 | 40 64.
    np.testing.assert_array_equal(used, [2, 0, 1, 1])


def test_the_widths_are_few_rounded_and_end_with_the_full_width():
    assert Split(widths=3).columns(100) == (48, 80, 100)
    assert Split(widths=4).columns(10) == (10,)
    assert Split(widths=1).columns(352) == (352,)


def test_each_device_keeps_its_own_rows():
    split = Split(parts=2, widths=4, shards=2)
    order_XR = micro_batches._order(jnp.asarray(LENGTH_B), split, sort=True)
    row_MR = micro_batches._into_parts(jnp.arange(8), order_XR, split)
    # Rows 0 to 3 are on one device and 4 to 7 on another: each holds half of every part.
    assert np.all(np.asarray(row_MR)[:, :2] < 4) and np.all(np.asarray(row_MR)[:, 2:] >= 4)
    np.testing.assert_array_equal(row_MR, [[1, 3, 5, 7], [2, 0, 4, 6]])
    np.testing.assert_array_equal(micro_batches._joined(row_MR, order_XR, split), np.arange(8))


def split_of(memory: MemorySettings, rows: int = 64, columns: int = 224, **changes) -> Split:
    given = {"attempt_tokens": 64, "shards": 1, "platform": "cpu"} | changes
    model = fakes.model(mlp_width=768)
    return micro_batches.choose(memory, model, rows=rows, columns=columns, **given)


def test_by_default_a_cpu_splits_rows_into_parts_of_about_a_thousand_tokens():
    assert split_of(MemorySettings()) == Split(16, 4)
    assert split_of(MemorySettings(), attempt_tokens=8) == Split(16, 1)
    assert split_of(MemorySettings(), shards=4) == Split(4, 4, 4)
    assert split_of(MemorySettings(), platform="tpu") == Split(1, 1)
    assert split_of(MemorySettings(), rows=3, columns=2000) == Split(3, 4)
    assert split_of(MemorySettings(micro_batches=8, widths=2)) == Split(8, 2)


def test_rows_that_cannot_be_split_over_devices_and_parts_are_refused():
    with pytest.raises(InputError, match=r"64 rows .* 8 devices .*micro_batches=16.*divisor of 8"):
        split_of(MemorySettings(micro_batches=16), shards=8)


def test_no_part_moves_between_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    length_B = jax.device_put(np.tile(LENGTH_B, 2), rows)
    value_BT = jax.device_put(np.tile(VALUE_BT, (2, 1)), rows)

    def fn(part):
        return jnp.sum(part), jnp.cos(part)

    @jax.jit
    def found(value_BT, length_B):
        return micro_batches.accumulate(fn, value_BT, length_B, Split(2, 4, 4))

    text = found.lower(value_BT, length_B).compile().as_text()
    for moving in ("all-gather", "all-to-all", "collective-permute"):
        assert moving not in text
    assert found(value_BT, length_B)[1].sharding.is_equivalent_to(rows, 2)
