"""The table's sums are its parts, and what is short of room is said."""

import dataclasses

from jax.sharding import AbstractMesh

from score_jax.modes.plan import bounds, chips, shapes, table
from score_jax.modes.plan.compiled import Compiled
from score_jax.modes.plan.estimate import EVALUATION, ROLLOUT, STAYS, UPDATE, Term
from score_jax.modes.plan.hlo import Cost
from tests.modes.plan import flagships

GIB = chips.GIB
TERMS = [
    Term("weights", STAYS, 2 * GIB),
    Term("optimizer", STAYS, 4 * GIB),
    Term("cache", ROLLOUT, 3 * GIB),
    Term("cache", EVALUATION, 1 * GIB),  # of another program
    Term("gradients", UPDATE, 1 * GIB),
]
FOUND = {
    UPDATE: Compiled(1.0, weights=0, temporaries=5 * GIB, others=0, code=GIB // 4, cost=Cost()),
    ROLLOUT: Compiled(
        1.0,
        weights=GIB,
        temporaries=4 * GIB,
        others=GIB // 2,
        code=GIB // 4,
        cost=Cost(
            count={"all-gather": 3, "all-reduce": 2},
            bytes={"all-gather": GIB, "all-reduce": GIB / 2},
            per_turn={"all-reduce": 1},
        ),
    ),
}


def test_what_stays_and_the_code_of_both_count_while_either_program_runs():
    assert table.needed(TERMS, FOUND) == {UPDATE: 11.5 * GIB, ROLLOUT: 12 * GIB}


def test_every_row_of_the_table_is_in_its_sum_once():
    rows = table.both(chips.slice_of("v5e:4x4"), TERMS, FOUND).splitlines()
    values = {row[:34].strip(): row[34:].split() for row in rows}
    parts = [v for name, v in values.items() if name not in ("sum", rows[0][:34].strip())][:-1]
    for column, total in enumerate(values["sum"]):
        shown = [float(v[column]) for v in parts if v[column] != "-"]
        assert abs(sum(shown) - float(total)) < 0.01
    assert values["decode weights"] == ["1.00", "-"]
    assert values["cache"] == ["3.00", "-"] and values["other temporaries"] == ["1.00", "5.00"]
    assert values["share of 15.75 GiB"] == ["76%", "73%"]


def test_what_slices_exchange_is_told_with_its_time():
    where = chips.slice_of("2xv5e-16")
    update = dataclasses.replace(FOUND[UPDATE], cost=Cost(between=6.25e9))
    assert "update: between slices" in table.collectives({UPDATE: update})
    settings = flagships.settings("math_gemma2_2b")
    shape = shapes.of_config(settings, AbstractMesh((2, 16, 1), ("data", "fsdp", "tensor")))
    said = table.least_compiled(where, shape, TERMS, FOUND | {UPDATE: update})
    assert "6.25 GB between slices 2.0 s" in said
    rows = table.scaled(list(bounds.steps(where, shape, update))).splitlines()
    assert [row.split()[:2] for row in rows[3:]] == [
        [str(16 * slices), str(slices)] for slices in (1, 2, 4, 8, 16, 32)
    ]
    step, cost = (float(text.replace(",", "")) for text in rows[4].split()[9:11])
    assert abs(cost - 1000 * step * 32 / 3600) < 0.01 * cost


def test_a_time_between_slices_that_is_not_known_is_not_shown_as_none():
    settings = flagships.settings("math_gemma2_2b")
    shape = shapes.of_config(settings, AbstractMesh((1, 8, 2), ("data", "fsdp", "tensor")))
    steps = list(bounds.steps(chips.slice_of("v6e-16"), shape, FOUND[UPDATE]))
    one, *several = table.scaled(steps).splitlines()[3:]
    assert "not known" not in one and several and all("not known" in row for row in several)


def test_collectives_of_a_data_dependent_loop_are_reported_apart():
    said = table.collectives(FOUND)
    assert "rollout: all-gather" in said and "update: none" in said
    (line,) = [line for line in said.splitlines() if "all-reduce" in line]
    assert line.endswith("1 in data-dependent loops, counted once")
