"""Rows of a stream are those of `episode.run`, whatever the slots, the order and the mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from score_jax.rollout import episode, programs, stream
from score_jax.rollout.stream import Stream, widths
from score_jax.structs import Episode
from tests.rollout import episode_test, slots_test
from tests.rollout.episode_test import (
    CASES,
    KEY,
    PARAMS,
    PLAIN,
    PROBLEMS,
    PROMPT,
    mesh_of,
    prompts,
)

pytestmark = pytest.mark.usefixtures("quick_compile")


def collected(made: Stream) -> dict[int, Episode]:
    """Every row by its number; each comes once."""
    found: dict[int, Episode] = {}
    for ended in made:
        assert list(ended.item_M) == sorted(ended.item_M) and len(ended.item_M)
        np.testing.assert_array_equal(ended.item_N, ended.item_M)  # one process
        for n, item in enumerate(ended.item_N):
            assert item not in found
            found[int(item)] = jax.tree.map(lambda x, n=n: x[n], ended.rows)
    return found


def expected(settings, **how) -> Episode:
    return jax.device_get(
        episode.run(PARAMS, prompts(), jax.random.key(KEY), settings=settings, **how)
    )


def assert_same(found: dict[int, Episode], right: Episode, items) -> None:
    assert sorted(found) == sorted(items)
    for item in items:
        row, length = found[item], int(right.length[item])
        assert int(row.length) == length
        np.testing.assert_array_equal(row.tokens[:length], right.tokens[item, :length])
        np.testing.assert_array_equal(row.attempt[:length], right.attempt[item, :length])
        np.testing.assert_allclose(row.logp[:length], right.logp[item, :length], atol=2e-6)
        np.testing.assert_array_equal(row.truncated, right.truncated[item])
        assert not row.attempt[length:].any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "rows", [pytest.param(1, marks=pytest.mark.slow), 5, pytest.param(100, marks=pytest.mark.slow)]
)
def test_rows_are_those_of_one_program(name, rows):
    settings = CASES[name]
    made = Stream(PARAMS, prompts(), jax.random.key(KEY), settings=settings, rows=rows)
    items = range(PROBLEMS * settings.samples)
    assert len(made) == len(items)
    assert_same(collected(made), expected(settings), items)


def test_shards_feed_each_problem_its_own_instruction():
    settings, mesh = slots_test.UNASKED, mesh_of(2, 1, 1)
    batch = slots_test.asking(slots_test.own(*([ids] for ids in slots_test.OF_PROBLEM)))
    items, right = range(PROBLEMS * settings.samples), slots_test.rolled("refilled")
    found = Stream(PARAMS, batch, jax.random.key(KEY), settings=settings, rows=10, mesh=mesh)
    assert_same(collected(found), right, items)
    of_shards = episode_test.roll(settings, batch, mesh=mesh)
    episode_test.assert_same_samples(of_shards, right)


def test_only_wanted_items_are_decoded_in_their_order():
    items = [20, 3, 7, 0]
    made = Stream(PARAMS, prompts(), jax.random.key(KEY), settings=PLAIN, rows=1, items=items)
    found = collected(made)
    assert list(found) == items
    assert_same(found, expected(PLAIN), items)


def test_limits_and_siblings_hold():
    settings = dataclasses.replace(PLAIN, samples=4, siblings=2)
    limit_QGA = np.random.default_rng(0).integers(1, 6, (PROBLEMS, 4, 2))
    made = Stream(
        PARAMS,
        prompts(),
        jax.random.key(KEY),
        settings=settings,
        rows=6,
        limit_QGA=limit_QGA,
    )
    right = expected(settings, limit_QGA=limit_QGA)
    assert_same(collected(made), right, range(PROBLEMS * 4))


@pytest.mark.parametrize("sizes", [(4, 1, 1), (2, 2, 1), (2, 1, 2)])
def test_shards_serve_their_own_slots(sizes):
    mesh = mesh_of(*sizes)
    made = Stream(
        episode_test.on(mesh, PARAMS),
        prompts(),
        jax.random.key(KEY),
        settings=PLAIN,
        rows=8,
        mesh=mesh,
    )
    assert_same(collected(made), expected(PLAIN), range(PROBLEMS * PLAIN.samples))


@pytest.mark.filterwarnings("error:Some donated buffers")
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), pytest.param((2, 1, 1), marks=pytest.mark.slow), (2, 1, 2)]
)
def test_the_last_rows_move_into_fewer_slots(sizes, monkeypatch):
    monkeypatch.setattr(stream, "_MANY", 4)
    settings = dataclasses.replace(PLAIN, shrink=1, attempts=3)
    limit_QGA = np.random.default_rng(0).integers(1, 6, (PROBLEMS, 3, 3))
    mesh = mesh_of(*sizes)
    made = Stream(
        episode_test.on(mesh, PARAMS),
        prompts(),
        jax.random.key(KEY),
        settings=settings,
        rows=16,
        mesh=mesh,
        limit_QGA=limit_QGA,
    )
    assert_same(collected(made), expected(settings, limit_QGA=limit_QGA), range(PROBLEMS * 3))
    assert made.work["slot_steps"] < 16 // sizes[0] * made.work["decode_steps"]


def test_work_is_counted():
    made = Stream(PARAMS, prompts(), jax.random.key(KEY), settings=PLAIN, rows=4)
    found = collected(made)
    written = sum(int((row.attempt > 0).sum()) for row in found.values())
    assert made.work["live_slot_steps"] == written
    assert made.work["slot_steps"] == 4 * made.work["decode_steps"]


def test_long_sets_are_fed_in_two_widths():
    assert widths(np.array([5, 60]), 60, 500) == (64,)
    assert widths(np.array([40] * 9 + [300]), 300, 500) == (64, 320)
    assert widths(np.array([200] * 9 + [300]), 300, 500) == (320,)
    assert widths(np.array([40] * 9 + [300]), 310, 500) == (64, 320)
    assert widths(np.array([40] * 9 + [300]), 300, 310) == (64, 310)
    assert widths(np.array([5, 6]), 250, 500) == (32, 256)


def test_sets_of_one_longest_prompt_share_their_programs():
    short, greedy = episode_test.take(prompts(), slice(3)), CASES["greedy"]
    wide_QP = np.pad(short.tokens, ((0, 0), (0, 40 - PROMPT)))
    longer = dataclasses.replace(short, tokens=wide_QP, length=np.array([40, 1, 33], np.int32))

    def program(batch, tokens: int) -> int:
        """How many programs decode once this set is decoded too."""
        how = {"settings": greedy, "rows": 2, "prompt_tokens": tokens}
        found = collected(Stream(PARAMS, batch, jax.random.key(KEY), **how))
        if batch is short:
            assert_same(found, expected(greedy), range(3 * greedy.samples))
        return programs.decode._cache_size()

    assert program(short, 40) == program(longer, 0) < program(short, 0)


def test_greedy_rows_are_decoded_by_the_program_of_sampled_ones():
    settings = dataclasses.replace(PLAIN, samples=1, max_attempt_tokens=7)  # of no other test
    greedy = dataclasses.replace(settings, policy=CASES["greedy"].policy)
    right = expected(greedy)
    jax.block_until_ready(episode.run(PARAMS, prompts(), jax.random.key(KEY), settings=settings))
    before = programs.decode._cache_size()
    how = {"settings": greedy, "rows": PROBLEMS, "prompt_tokens": PROMPT}
    found = collected(Stream(PARAMS, prompts(), jax.random.key(KEY), **how))
    assert programs.decode._cache_size() == before
    assert_same(found, right, range(PROBLEMS))
    assert all(not row.logp.any() for row in found.values())
