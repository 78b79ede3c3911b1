"""What is advised fits, and what is milder does not."""

import jax
import pytest

from score_jax.modes.plan import advise, chips, estimate, shapes
from tests.modes.plan import flagships

ONE = jax.sharding.AbstractMesh((1, 1, 1), ("data", "fsdp", "tensor"))
GIB = chips.GIB


def planned(name: str = "gsm8k_qwen3_06b") -> shapes.Shapes:
    return shapes.of_config(flagships.settings(name), ONE, platform="gpu")


def needs(what: shapes.Shapes, changes=None) -> float:
    changed = what.changed(advise.applied(what.experiment.settings, changes or {}))
    return max(estimate.needed(estimate.terms(changed)).values())


def test_what_fits_needs_no_change():
    what = planned()
    assert advise.fitting(what, needs(what)) == {}


@pytest.mark.parametrize("gib", [19, 16, 12, 8, 6])
def test_what_does_not_fit_is_changed_no_more_than_it_must_be(gib):
    what = planned()
    changes = advise.fitting(what, gib * GIB)
    assert changes and needs(what, changes) <= gib * GIB
    for key in changes:
        without = {name: value for name, value in changes.items() if name != key}
        assert needs(what, without) > gib * GIB


def test_changes_that_change_no_result_come_first():
    what = planned()
    only_time = {"memory.micro_batches", "memory.remat", "rollout.slots", "evaluation.batch"}
    assert "rollout.slots" in advise.fitting(what, 19 * GIB).keys() <= only_time
    assert "model.lora.rank" in advise.fitting(what, 6 * GIB)


def test_where_nothing_helps_nothing_is_advised():
    what = planned()
    assert advise.fitting(what, advise.least(what) - 1) is None


def test_more_devices_are_advised_with_their_mesh():
    what = planned("math_gemma2_2b")

    def make(fsdp: int, tensor: int) -> shapes.Shapes:
        sizes = {"data": 1, "fsdp": fsdp, "tensor": tensor}
        changes = {f"mesh.{name}": size for name, size in sizes.items()}
        settings = advise.applied(what.experiment.settings, changes)
        return what.on(jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes)), settings)

    devices, changes = advise.on_more(make, 1, 0.0, 40 * GIB)
    assert devices == changes["mesh.fsdp"] * changes["mesh.tensor"] > 1
    made = make(changes["mesh.fsdp"], changes["mesh.tensor"])
    assert needs(made, changes) <= 40 * GIB


def test_room_is_the_last_value_that_fits():
    what = planned()
    usable = 24 * GIB
    lines = advise.room(what, usable)
    (slots,) = (int(line.split()[3]) for line in lines if line.startswith("rollout.slots up to"))
    assert needs(what, {"rollout.slots": slots}) <= usable
    assert needs(what, {"rollout.slots": slots + 1}) > usable
    (parts,) = (int(line.split()[2]) for line in lines if line.startswith("memory.micro_batches"))
    assert needs(what, {"memory.micro_batches": parts}) <= usable
    assert needs(what, {"memory.micro_batches": parts // 2}) > usable


def test_changes_are_typed_as_the_command_line_takes_them():
    assert advise.typed({"mesh.fsdp": 2, "model.dtype": "bfloat16"}) == (
        "--config.mesh.fsdp=2 --config.model.dtype=bfloat16"
    )
