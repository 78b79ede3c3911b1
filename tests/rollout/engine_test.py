"""Batches of an engine, as an evaluation takes them."""

import threading

import jax
import numpy as np
import pytest

from score_jax.rl.policy import Policy
from score_jax.rollout import engine
from score_jax.rollout.engine import Batches
from score_jax.rollout.settings import EpisodeSettings
from score_jax.structs import Episode, Instructions, PromptBatch
from tests import fakes

SETTINGS = EpisodeSettings(
    model=fakes.MODEL,
    policy=Policy(),
    attempts=1,
    samples=2,
    max_attempt_tokens=1,
    instruction=(),
    turn_end=(),
    end_ids=(fakes.END,),
    pad_id=fakes.PAD,
)
PROMPTS = PromptBatch(
    np.arange(10).reshape(5, 2),
    np.full(5, 2),
    np.arange(100, 105),
    tuple("abcde"),
    Instructions(np.arange(5)[:, None, None], np.ones((5, 1))),
)


class Fake:
    """Rows that say which problem and sample they are of; notes what it was asked."""

    def __init__(self):
        self.asked: list[tuple] = []

    def __call__(self, prompts, key, *, settings) -> Episode:
        self.asked.append((prompts.problems, prompts.instructions.tokens.ravel().tolist(), key))
        tokens_BT = np.repeat(prompts.index, settings.samples)[:, None] * 10
        tokens_BT += np.tile(np.arange(settings.samples), len(prompts.index))[:, None]
        return Episode(tokens_BT, tokens_BT, tokens_BT, tokens_BT[:, 0], tokens_BT)


def test_batches_have_whole_problems_and_wanted_rows_alone():
    fake, key = Fake(), jax.random.key(3)
    wanted = [1, 4, 5, 8, 9]  # of problems 0, 2 and 4
    batches = Batches(fake, PROMPTS, key, settings=SETTINGS, rows=5, items=wanted)
    assert len(batches) == 5
    found = [ended for ended in batches if len(ended.item_N)]
    assert [ended.item_N.tolist() for ended in found] == [[1, 4, 5], [8, 9]]
    rows = [ended.rows.tokens.ravel().tolist() for ended in found]
    assert rows == [[1001, 1020, 1021], [1040, 1041]]
    assert fake.asked == [(("a", "c"), [0, 2], key), (("e",), [4], key)]


def test_a_problem_with_more_samples_than_rows_is_a_batch_of_its_own():
    fake = Fake()
    batches = Batches(fake, PROMPTS, jax.random.key(0), settings=SETTINGS, rows=1, items=[0, 1, 2])
    assert [ended.item_N.tolist() for ended in batches if len(ended.item_N)] == [[0, 1], [2]]


def test_nothing_is_asked_for_no_items():
    fake = Fake()
    assert not list(Batches(fake, PROMPTS, jax.random.key(0), settings=SETTINGS, rows=4, items=[]))
    assert not fake.asked


def test_while_an_engine_works_its_user_is_asked_whether_to_stop(monkeypatch):
    monkeypatch.setattr(engine, "LOOK_SEC", 0.01)
    fake, goes_on = Fake(), threading.Event()

    def slow(*args, **how):
        assert goes_on.wait(60)
        return fake(*args, **how)

    batches = iter(Batches(slow, PROMPTS, jax.random.key(0), settings=SETTINGS, rows=9, items=[0]))
    assert not len(next(batches).item_N) and not len(next(batches).item_M)
    goes_on.set()
    assert [0] in [ended.item_N.tolist() for ended in batches]


def test_the_next_batch_is_sampled_while_one_is_used():
    fake, second = Fake(), threading.Event()

    def noting(prompts, *args, **how):
        if prompts.problems == ("b",):
            second.set()
        return fake(prompts, *args, **how)

    how = {"settings": SETTINGS, "rows": 2, "items": [0, 2]}
    for ended in Batches(noting, PROMPTS, jax.random.key(0), **how):
        if ended.item_N.tolist() == [0]:
            assert second.wait(60)
    assert second.is_set()


def test_what_an_engine_raises_is_raised_where_its_rows_are_used():
    def failing(*_, **__):
        raise ValueError("no rows")

    how = {"settings": SETTINGS, "rows": 2, "items": [0, 2]}
    with pytest.raises(ValueError, match="no rows"):
        list(Batches(failing, PROMPTS, jax.random.key(0), **how))
