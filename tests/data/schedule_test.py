import numpy as np
import pytest

from score_jax.data import schedule
from score_jax.problem import InputError, Problem


def everything(count):
    return np.arange(count)


def drawn(made, batches, start=0):
    return [made.positions(number).tolist() for number in range(start, start + batches)]


def test_one_set_is_drawn_in_the_order_of_its_seed_and_epoch():
    # Pinned: a run's data, and so every measured result, hangs on it.
    made = schedule.plain(everything(10), 4, seed=7)
    for epoch in range(3):
        order = np.random.default_rng([7, epoch]).permutation(10).tolist()
        assert drawn(made, 2, start=2 * epoch) == [order[:4], order[4:8]]


@pytest.mark.parametrize(
    "weights", [(1, 1), (3, 1), (0.9, 0.1), (5, 3, 2), (1, 0.03), (1, 1, 1e-2)]
)
@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_counts_of_a_mixture_stay_within_one_of_their_share(weights, batch):
    counts = schedule.shares(weights, batch)
    assert (counts.sum(axis=1) == batch).all() and (counts >= 0).all()
    share = np.array(weights) / sum(weights)
    exact = batch * np.arange(1, schedule.CYCLE + 1)[:, None] * share
    assert np.abs(counts.cumsum(axis=0) - exact).max() < 1 + 1e-9


def test_a_mixture_holds_the_weights_and_every_problem_of_both_sets():
    made = schedule.mixture(everything(70), [(50, 3.0), (20, 1.0)], 8, seed=1)
    found = drawn(made, 400)
    first = sum(position < 50 for batch in found for position in batch)
    assert first == 0.75 * 8 * 400
    seen = np.bincount(np.concatenate(found), minlength=70)
    # 2,400 draws of 50 problems and 800 of 20: what an epoch leaves out varies from epoch to epoch.
    assert seen[:50].min() > 35 and seen[:50].max() < 60
    assert seen[50:].min() == seen[50:].max() == 40  # 2 divides 20: nothing is left out
    for batch in found:
        assert len(set(batch)) == 8


def test_a_rare_set_is_gone_through_in_whole_epochs():
    made = schedule.mixture(everything(105), [(100, 19.0), (5, 1.0)], 2, seed=1)
    rare = [position for batch in drawn(made, 500) for position in batch if position >= 100]
    assert len(rare) == 50
    for start in range(0, 50, 5):
        assert sorted(rare[start : start + 5]) == [100, 101, 102, 103, 104]


def test_sets_are_spread_over_the_batch_so_that_processes_share_them():
    made = schedule.mixture(everything(80), [(40, 1.0), (40, 1.0)], 8, seed=1)
    for batch in drawn(made, 20):
        assert [sum(p < 40 for p in batch[half : half + 4]) for half in (0, 4)] == [2, 2]


def test_problems_that_were_left_out_are_in_no_part():
    kept = np.array([0, 2, 3, 5, 7, 9])  # 1, 4, 6 and 8 were too long
    made = schedule.mixture(kept, [(5, 1.0), (5, 1.0)], 2, seed=1)
    assert set(np.concatenate(drawn(made, 30)).tolist()) == set(kept.tolist())
    for low, high in drawn(made, 30):
        assert low < 5 <= high


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(50, 1.0), (3, 1.0)], r"takes 4 different .* set 2 .* has only 3 usable"),
        ([(50, 1.0), (50, 1e-4)], r"weight 0\.0001 of set 2 .* less than one problem in 100 steps"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused(parts, message):
    with pytest.raises(InputError, match=message):
        schedule.mixture(everything(100), parts, 8, seed=1)


def levelled(*levels):
    return [Problem(f"p/{n}", "?", "1", tags={"level": text}) for n, text in enumerate(levels)]


LEVELS = levelled(*["Level 1"] * 6, *["Level 3"] * 6, *["2"] * 6, *["Level ?"] * 6)


def start(problems=LEVELS, **changes):
    settings = {"steps": 30, "done": 0, "batch": 4, "seed": 1} | changes
    return schedule.curriculum(problems, everything(len(problems)), **settings)


def test_levels_join_step_by_step_and_the_unknown_ones_last():
    phases = [set(np.concatenate(drawn(start(), 10, at)).tolist()) for at in (0, 10, 20)]
    assert phases[0] == set(range(6))
    assert phases[1] == {*range(6), *range(12, 18)}
    assert phases[2] == set(range(24))
    assert all(len(set(batch)) == 4 for batch in drawn(start(), 100))


def test_after_its_last_step_a_curriculum_draws_as_if_there_were_none():
    assert drawn(start(), 50, 20) == drawn(schedule.plain(everything(24), 4, seed=1), 50)


def test_steps_of_earlier_stages_count():
    # 12 steps done: the second phase has 8 to go.
    found = drawn(start(done=12), 20)
    assert set(np.concatenate(found[:8]).tolist()) == {*range(6), *range(12, 18)}
    assert found[8:] == drawn(schedule.plain(everything(24), 4, seed=1), 12)
    assert drawn(start(done=99), 20) == drawn(schedule.plain(everything(24), 4, seed=1), 20)


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (levelled(*["Level 2"] * 9), r"curriculum_steps=30 .* have 1 different levels"),
        (
            levelled(*["1"] * 3, *["2"] * 9),
            r"begins with 3, up to level 1.*per_step to at most 3",
        ),
        (levelled("easy", *["2"] * 9), r"'p/0' has the level 'easy', which is not a number"),
        ([Problem(f"p/{n}", "?", "1") for n in range(9)], r"have 0 different levels"),
    ],
)
def test_a_curriculum_without_levels_is_refused(problems, message):
    with pytest.raises(InputError, match=message):
        start(problems)
