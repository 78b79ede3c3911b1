"""The least times of a step, and of the same step on other numbers of chips."""

import pytest
from jax.sharding import AbstractMesh

from score_jax.modes.plan import bounds, chips, estimate, shapes
from score_jax.modes.plan.compiled import Compiled
from score_jax.modes.plan.hlo import Cost
from tests.modes.plan import flagships

SENT = 3e11


def planned(name: str, topology: str, **mesh: int):
    where = chips.slice_of(topology)
    settings = flagships.settings(name)
    there = AbstractMesh(tuple(mesh.values()), tuple(mesh))
    return where, shapes.of_config(settings, there)


def found(sent: float = SENT) -> Compiled:
    return Compiled(1.0, weights=0, temporaries=0, others=0, code=0, cost=Cost(sent=sent))


def test_on_the_plan_s_own_chips_a_step_is_the_plan_s():
    where, shape = planned("math_gemma2_2b", "v5e-16", data=1, fsdp=8, tensor=2)
    by_chips = {step.where.chips: step for step in bounds.steps(where, shape, found())}
    assert list(by_chips) == [16, 32, 64, 128, 256, 512]
    own, terms = by_chips[16], estimate.terms(shape)
    assert own.mesh == {"data": 1, "fsdp": 8, "tensor": 2} and own.fits
    assert own.compute == bounds.compute(where, shape)[0]
    assert own.rollout == bounds.rollout(where, shape, terms)[0]
    assert own.send == SENT / where.chip.ici_bytes_per_sec and own.exchange == 0
    assert own.seconds == max(own.compute, own.send) + own.rollout


def test_more_chips_are_more_slices_with_fewer_rows_and_micro_batches_each():
    where, shape = planned("math_gemma2_2b", "v5e-16", data=1, fsdp=8, tensor=2)
    by_chips = {step.where.chips: step for step in bounds.steps(where, shape, found())}
    assert [step.where.slices for step in by_chips.values()] == [1, 2, 4, 8, 16, 32]
    assert by_chips[64].compute == pytest.approx(by_chips[16].compute / 4)
    parts = shape.state.settings.split.parts
    assert by_chips[32].send == pytest.approx(by_chips[16].send * max(1, parts // 2) / parts)
    gradient = shapes.device_bytes(shape.state.params)
    assert by_chips[32].exchange == pytest.approx(max(1, parts // 2) * gradient / 3.125e9)
    # Two slices send each byte once, eight of them 2 * 7 / 8 times.
    eight = max(1, parts // 8) * gradient * 2 * 7 / 8 / 3.125e9
    assert by_chips[128].exchange == pytest.approx(eight)
    # 128 problems, of which none is split over chips that have other rows.
    assert by_chips[512].mesh == {"data": 16, "fsdp": 8, "tensor": 4}


def test_a_network_whose_speed_is_not_known_takes_no_time_and_that_is_said_elsewhere():
    assert bounds.exchange(chips.slice_of("2xv6e-8"), 1e9) == (0.0, 1e9)
    assert bounds.exchange(chips.slice_of("v6e-8"), 1e9) == (0.0, 0.0)
